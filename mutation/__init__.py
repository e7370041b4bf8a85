"""Mutation testing of the member machine, in an environment of its own: `make mutate`; see docs/mutation.md."""
