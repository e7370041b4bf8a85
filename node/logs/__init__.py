"""The gateway's logs: system, consumer and calibration log (BSI TR-03109-1)."""
