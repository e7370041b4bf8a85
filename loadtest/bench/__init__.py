"""Benchmarks: ours and a peer's side by side in one run, because a figure alone says more of the machine than of us."""
