"""SM-PKI certificate profiles."""
