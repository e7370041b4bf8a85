"""
HDLC, the link layer of DLMS meters (IEC 62056-46) and of the wired LMN (BSI TR-03109-1 Detailspezifikation, chapter 8).

`frame` knows bytes, `primary` and `secondary` know sequence numbers and timers, `link` knows trio; `lmn` assigns
addresses on the gateway's RS-485 bus, `tls` and `sym` put security inside.
"""
