"""What each coalition of up to three can open at best, by the one rule of `derivation`; no attack, no estimate."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from loadtest.lab.derivation import derive, parties_of
from loadtest.lab.schemes import Scheme
from loadtest.lab.transcript import Shape
from loadtest.lab.views import ROLES, exposure

RING = 12
LARGEST = 3
_ORDER = ("nothing", "sum", "pseudonym", "named")


class Exposure(NamedTuple):
    """A coalition that opens more than each of its parts, and what: a kind and how many households hide in it."""

    scheme: str
    coalition: str
    what: str
    kind: str
    members: int


def exposures(scheme: Scheme, size: int = RING, largest: int = LARGEST) -> list[Exposure]:
    """
    The coalitions that matter, for a member of a ring of `size` whose neighbours are no heads.

    Those that open no more than a part of them are left out. Sums are of that ring: what grows with it is the sum.
    """
    found = []
    if scheme.shape(size).messages:
        found += _of(scheme.name, "reading", scheme.shape(size), largest)
    if scheme.bill is not None:
        found += _of(scheme.name, "bill", scheme.bill(size), largest)
    return found


def _of(name: str, what: str, shape: Shape, largest: int) -> list[Exposure]:
    target = shape.size // 2
    best: dict[frozenset[str], tuple[int, int]] = {}
    found = []
    for count in range(1, largest + 1):
        for roles in combinations([role for role in ROLES if role != "wan"], count):
            coalition = frozenset(roles)
            kind, members = exposure(shape.size, derive(shape, parties_of(coalition, shape, target)), target)
            rank = _ORDER.index(kind), -members
            parts = [best[coalition - {role}] for role in roles if coalition - {role} in best]
            best[coalition] = max([rank, *parts])
            if kind != "nothing" and all(rank > part for part in parts):
                found.append(Exposure(name, "+".join(roles), what, kind, members))
    return found
