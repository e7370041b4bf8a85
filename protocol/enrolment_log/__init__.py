"""The enrolment log: a Merkle tree of who was certified, revoked and released, which nobody can rewrite unseen."""
