"""Gateway administrator and external market participant in one lightweight process."""
