"""The SQL of the node: a module for each owner, which gets methods with its own words and no SQL."""
