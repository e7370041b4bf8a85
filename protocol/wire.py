"""Wire messages."""
