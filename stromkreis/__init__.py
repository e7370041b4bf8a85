"""The command line: the front door to all rooms."""
