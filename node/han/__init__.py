"""The gateway's interface to its home (IF_GW_CON, IF_GW_SRV of BSI TR-03109-1): log-in, HAN API, consumer's page."""
