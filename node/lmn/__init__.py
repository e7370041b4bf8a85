"""The Local Metrological Network: drivers that turn what meters say into readings."""
