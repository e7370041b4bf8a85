"""The gateway administrator: SM-PKI, enrolment, directory, epochs."""
