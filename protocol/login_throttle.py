"""
Failed log-ins, slowed down and never locked out: each failure makes the next try wait longer, up to five minutes.

Counted are an account at an address, an address over all accounts, and an account over all addresses.  The last one
alone would let anybody at home keep the consumer out, so it does not count for addresses from which the account has
logged in before.  Whoever waits is refused without a look at the password: a guess then tells nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protocol.peer_addresses import peer_network

DELAY_S_MAX: Final = 300.0
FORGOTTEN_S: Final = 3600.0
"""After so long without a failure the count begins anew."""
_FREE_PAIR: Final = 3
_FREE_OTHERS: Final = 10
_REMEMBERED: Final = 4096

_Key = tuple[str, str]


@dataclass(slots=True)
class _Failures:
    count: int
    last_s: float
    until_s: float


class LoginThrottle:
    """`clock` is monotonic (s).  Memory is bounded, whoever tries how many names."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[_Key, _Failures] = OrderedDict()
        self._known: OrderedDict[_Key, None] = OrderedDict()  # accounts at addresses that have logged in

    def wait_s(self, user: str, address: str) -> float:
        """For how long this account must still wait at this address; 0 where it may try."""
        now_s = self._clock()
        waits = (each.until_s - now_s for key in self._keys(user, address) if (each := self._failures.get(key)))
        return max(0.0, *waits, 0.0)

    def failed(self, user: str, address: str) -> int:
        """Count a failure; returns how many there were of this account at this address."""
        now_s, place = self._clock(), peer_network(address)
        pair = 0
        for key, free in (((user, place), _FREE_PAIR), (("", place), _FREE_OTHERS), ((user, ""), _FREE_OTHERS)):
            known = self._failures.pop(key, None)
            count = 1 if known is None or now_s - known.last_s > FORGOTTEN_S else known.count + 1
            delay_s = 0.0 if count < free else min(DELAY_S_MAX, 2.0 ** min(count - free, 16))
            self._failures[key] = _Failures(count, now_s, now_s + delay_s)
            pair = pair or count
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return pair

    def succeeded(self, user: str, address: str) -> None:
        """A right password: the account's failures at this address are forgotten, and the address is known."""
        key = user, peer_network(address)
        self._failures.pop(key, None)
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _keys(self, user: str, address: str) -> list[_Key]:
        place = peer_network(address)
        keys = [(user, place), ("", place)]
        return keys if (user, place) in self._known else [*keys, (user, "")]
