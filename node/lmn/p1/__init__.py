"""
P1, the consumer's port of Dutch, Belgian, Luxembourg and Nordic meters (DSMR): a telegram every 1 to 10 seconds.

A P1 telegram is an IEC 62056-21 mode D readout with a CRC-16 after the `!` (from DSMR 4 on) and time stamps that
know their season; framing and interpretation are the ones of `node.lmn.iec62056_21`.
"""
