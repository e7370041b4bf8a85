"""Drives protocol.dcnet: the gateway as ring member and, when appointed, as head."""
