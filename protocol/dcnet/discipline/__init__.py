"""What a member keeps to whoever draws the rosters, so that differences of totals do not tell one household's curve."""
