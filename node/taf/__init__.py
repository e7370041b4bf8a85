"""Tariff use cases TAF 1 to 14 of BSI TR-03109-1: from the metering log to what is delivered and shown."""
