"""What gateways, heads and coordinator must agree on. Pure: bytes, values and time in, bytes and values out."""
