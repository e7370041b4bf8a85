"""Pedersen commitments (placeholder until the branch lands)."""

from collections.abc import Sequence

from protocol.dcnet.group import Group


def commit_slots(group: Group, values: Sequence[int], blindings: Sequence[int]) -> bytes:
    """Commit."""
    h = group.hash_to_group(b"h", b"")
    return b"".join(
        group.add(group.multiply_base(v), group.multiply(b, h)) for v, b in zip(values, blindings, strict=True)
    )
