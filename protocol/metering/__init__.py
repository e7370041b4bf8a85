"""What a reading is: OBIS codes, units and scalers, integer mantissas. Never a float on the way of a bill."""
