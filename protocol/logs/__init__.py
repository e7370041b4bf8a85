"""A gateway's logs as data without I/O: which events there are, and the chain of the calibration log."""
