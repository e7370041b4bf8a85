"""How many neighbours, shares and members a ring needs under which threat."""
