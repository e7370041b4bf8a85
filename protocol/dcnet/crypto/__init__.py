"""Primitives: the suite, the group, commitments, secret sharing, the threshold PRF and noise. They know no ring."""
