"""Mutation testing of the ring's machines, in an environment of its own (docs/explanation/mutation.md)."""
