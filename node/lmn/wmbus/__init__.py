"""Wireless M-Bus (EN 13757-4, -7, OMS): receivers' byte streams, link layers, security, telegrams to readings."""
