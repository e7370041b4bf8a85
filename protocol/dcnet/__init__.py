"""
The DC-net ring: keys, masks, threshold PRF and the state machines. No I/O, no clock, no hidden entropy.

From the bottom: `crypto` (primitives) and `parameters` (how large, how many), `setup` (what an epoch fixes before its
first round), then beside each other `machines` (what happens in a round) and `billing` (bills from commitments).
"""
