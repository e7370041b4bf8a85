"""Multicast DNS and service discovery (RFC 6762, 6763), as chapter 12 of BSI TR-03109-1 (details) asks for: no I/O."""
