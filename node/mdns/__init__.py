"""The gateway's names and services at home, by multicast DNS (chapter 12 of BSI TR-03109-1, details)."""
