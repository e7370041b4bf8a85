"""The gateway's clock and its synchronisation (BSI TR-03109-1 detail specification 2.0, chapter 14; PTB-A 50.8)."""
