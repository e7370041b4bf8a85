"""Registers and what is contributed from them."""
