"""Simulated meters in every protocol of the LMN."""
