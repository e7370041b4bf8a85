"""One smart meter gateway, or thousands in one process: meters, registers, ring membership."""
