"""Firmware of a node: slots on disk, what may go into them, and the supervisor that starts one or goes back."""
