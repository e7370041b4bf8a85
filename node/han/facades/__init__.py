"""What gateways in the field serve at home, for the programs that read them: thin adapters over the consumer's view."""
