"""Restore drills: what an operator does after a loss, done to a living network of real processes."""
