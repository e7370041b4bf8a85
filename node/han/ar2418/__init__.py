"""Files after VDE AR 2418-6 (schema 1.4), which the display software of the PTB (TRuDI) opens."""
