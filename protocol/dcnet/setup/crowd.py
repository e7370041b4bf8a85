"""
Among whom a reading hides: what a gateway asks of a list of members before it shows its part of the beacon.

A ring hides a reading among honest gateways only.  A coordinator that issues certificates can list as many gateways as
it likes, so a gateway compares with what it knows by itself:

- Pins.  An area does not lose a fifth of its gateways over night, and not a third of them is new on one day.  A list of
  fewer than 80 % of the largest area of the last 90 days, or with fewer than 70 % known ids, gets no value; the check
  costs nothing but the list.  A real shrinkage is confirmed in the node's configuration.
- Spot checks.  Members of the own ring are all checked.  Of the other rings' submissions so many are asked for at
  random that, where a tenth of the list is invented, one is found with a probability of 1 - 2^-10: 66 together.
- Budget.  Withholding a value rolls the dice anew, so values are shown at most 8 times in 24 hours, over all epochs and
  whatever became of them: whoever withholds gains 3 bits.

Areas of more than 256 are split by a hash of the id, which nobody chooses either: "all values" of 256 gateways come
together far oftener than of 1,024, and a list has 94 bytes for each gateway.

Times are metering time, in seconds: under a time lapse a day of it is less (protocol.dcnet.setup.calendar).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, log

from protocol.dcnet.crypto.suite import digest
from protocol.dcnet.setup.beacon import ListEntry
from protocol.errors import LocalProtocolError, RemoteProtocolError

DAY_S = 86_400
PART_SIZE_MAX = 256  # gateways that draw one beacon
SPLIT_BITS_MAX = 16
AREA_DAYS = 90  # for which the largest area is remembered
AREA_PERCENT = 80
KNOWN_PERCENT = 70
KNOWN_AFTER_S = DAY_S
REVEALS_MAX = 8
REVEALS_OF_OLD_KEY = 1
_INVENTED, _MISSED = 0.1, 2.0**-10
CHECKED_MIN = ceil(log(_MISSED) / log(1 - _INVENTED))


def split_bits(count: int) -> int:
    """d, the fewest bits that split `count` gateways into parts of at most 256 on average."""
    bits = 0
    while count > PART_SIZE_MAX << bits and bits < SPLIT_BITS_MAX:
        bits += 1
    return bits


def part_of(area: str, identity: str, bits: int) -> int:
    """The part of an area, from 0 to 2^bits - 1, in which a gateway stands, for any number of gateways."""
    return int.from_bytes(digest("split", area.encode(), identity.encode())[:4], "big") >> (32 - bits)


def check_part(entries: Iterable[ListEntry], area: str, bits: int, part: int) -> None:
    """Raise RemoteProtocolError `foreign_part` where an id of another part of the area is listed."""
    for each in entries:
        if part_of(area, each.identity, bits) != part:
            raise RemoteProtocolError("foreign_part", f"{each.identity} stands in another part of the area")


@dataclass(frozen=True, slots=True)
class Pins:
    """What a gateway remembers of an area: the most gateways in 90 days; 0: nothing yet, any list is the first."""

    largest: int = 0

    def check(self, size: int, bits: int, known: int) -> None:
        """
        Raise RemoteProtocolError unless a list of `size`, one of 2^bits parts, `known` of it known, is crowded enough.

        Reasons: `area_shrunk`, `unknown_members`.
        """
        if 100 * (size << bits) < AREA_PERCENT * self.largest:
            raise RemoteProtocolError(
                "area_shrunk",
                f"an area of {size << bits} gateways, expected at least {AREA_PERCENT} % of {self.largest}; where it"
                " has really shrunk, say so by node.policy.area_size_confirmed",
            )
        if self.largest and 100 * known < KNOWN_PERCENT * size:
            raise RemoteProtocolError(
                "unknown_members",
                f"{known} of {size} gateways were listed {KNOWN_AFTER_S // 3600} h ago already, expected at least"
                f" {KNOWN_PERCENT} %",
            )


def check_budget(
    shown_s: Iterable[float], now_s: float, *, old_key: bool, reveals_max: int = REVEALS_MAX
) -> None:  # fmt: skip
    """
    Raise RemoteProtocolError `reveals_spent` where a further value in 24 hours is one too many.

    `shown_s` are the times of the values shown; one that lies ahead (a clock that was set back) counts.  `old_key`: the
    key is older than what we remember of the last 24 hours.
    """
    spent = sum(each > now_s - DAY_S for each in shown_s)
    limit = REVEALS_OF_OLD_KEY if old_key else reveals_max
    if spent >= limit:
        raise RemoteProtocolError("reveals_spent", f"{spent} values of the beacon shown in 24 h, {limit} at most")


def spot_checks(ring_size: int) -> int:
    """How many submissions of other rings a member of a ring of `ring_size` asks for: 3 at 64, 43 at 24."""
    return max(0, CHECKED_MIN - (ring_size - 1))


def choose_spot_checks(
    entries: Sequence[ListEntry], ring: Iterable[str], below: Callable[[int], int]
) -> tuple[ListEntry, ...]:
    """
    The entries of other rings to ask for, drawn without replacement; `below(n)` is a uniform integer under n.

    Whoever is asked does not know before which they are.
    """
    own = set(ring)
    others = [each for each in entries if each.identity not in own]
    wanted = min(len(others), spot_checks(len(own)))
    for index in range(wanted):
        chosen = index + below(len(others) - index)
        others[index], others[chosen] = others[chosen], others[index]
    return tuple(others[:wanted])


def admit(known: Sequence[str], fresh: Sequence[str]) -> list[str]:
    """
    Whom a coordinator lists so that gateways which know `known` do not refuse: all of them, and of `fresh` the first.

    Where nobody is known the area is new, and everybody is.  Raises LocalProtocolError for an id in both.
    """
    if not set(known).isdisjoint(fresh):
        raise LocalProtocolError("a gateway is known or it is not")
    if not known:
        return list(fresh)
    return [*known, *fresh[: len(known) * (100 - KNOWN_PERCENT) // KNOWN_PERCENT]]
