"""The external market participant: round book and totals."""
