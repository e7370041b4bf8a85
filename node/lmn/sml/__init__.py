"""SML meters (BSI TR-03109-1 annex IV): transport, codec, readings, the client's use cases and the driver."""
