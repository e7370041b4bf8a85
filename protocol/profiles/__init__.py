"""Profiles: what the administrator (GWA) sets on a gateway, as data without I/O (BSI TR-03109-1, profiles)."""
