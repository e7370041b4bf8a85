"""The profile set that is in force on a gateway: checked as a whole, stored, switched (the models are protocol's)."""
