"""Benchmarks: each prints what it measured, on the machine it runs on."""
