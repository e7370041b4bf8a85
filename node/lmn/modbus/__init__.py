"""Meters on Modbus, RTU and TCP: SunSpec's models or a table of registers; what they say is not for billing."""
