"""The proxy for controllable systems at home (IF_GW_CLS of BSI TR-03109-1): TLS here, TLS there, octets between."""
