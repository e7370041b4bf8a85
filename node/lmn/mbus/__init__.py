"""Wired M-Bus (EN 13757-2 link, EN 13757-3 application): frames, records, readings, the primary station, its driver."""
