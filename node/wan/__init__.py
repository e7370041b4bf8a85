"""The gateway's way out: enrolment and the link to its administrator."""
