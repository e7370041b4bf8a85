"""What an epoch fixes before its first round: schema, rings, the members' secrets and the ledger's."""
