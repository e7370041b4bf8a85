"""Simulated meters, the demo, the ring simulator and benchmarks."""
