"""Mutation testing of the member machine, in an environment of its own (docs/explanation/mutation.md)."""
