"""Epochs of areas, their rings, and the round ledger: from the call of an epoch to the durable end of each round."""
