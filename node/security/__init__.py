"""The security module: private keys are made, used and deleted behind it and never leave it."""
