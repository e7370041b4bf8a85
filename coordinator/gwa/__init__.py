"""The gateway administrator: SM-PKI, enrolment, directory, admission, misbehaviour reports."""
