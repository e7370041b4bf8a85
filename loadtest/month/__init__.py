"""A month of deliveries on real processes: rolled out, sent over a bad network, killed, exact to the last Wh."""
