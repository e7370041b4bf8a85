"""The schemes by name; adding one means adding it to a table here."""

from __future__ import annotations

from loadtest.lab.schemes import battery, bills, direct, sums
from loadtest.lab.schemes.base import Scheme, groups_of, play, play_group
from protocol.errors import StromkreisError

SCHEMES: dict[str, Scheme] = {
    each.name: each for each in (*direct.SCHEMES, *sums.SCHEMES, *battery.SCHEMES, *bills.SCHEMES)
}


def scheme_of(name: str) -> Scheme:
    """The scheme of this name.  Raises StromkreisError with all names."""
    if name not in SCHEMES:
        raise StromkreisError(f"no scheme is called {name}; expected one of {', '.join(SCHEMES)}")
    return SCHEMES[name]


__all__ = ["SCHEMES", "Scheme", "groups_of", "play", "play_group", "scheme_of"]
