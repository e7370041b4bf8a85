"""The DC-net ring: keys, masks, threshold PRF and the state machines. No I/O, no clock, no hidden entropy."""
