"""The demo: a neighbourhood of real processes on this machine, watched, disturbed and held against ground truth."""
