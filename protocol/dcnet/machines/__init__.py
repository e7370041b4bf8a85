"""The state machines of a round: member, head and round ledger. Messages and the time in, effects out."""
