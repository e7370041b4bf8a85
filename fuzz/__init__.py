"""Coverage-guided fuzzing of the meter codecs with atheris; see `fuzz.invariant` for what they promise."""
