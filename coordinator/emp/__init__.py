"""The external market participant: round ledger and totals."""
