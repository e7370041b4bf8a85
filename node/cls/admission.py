"""
How many connections the proxy has at once, in all and of one address, so that none can take the others' place.

Of IPv6 a whole /64 network counts as one address (protocol.peer_addresses).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

CONNECTIONS_MAX: Final = 64
CONNECTIONS_PER_ADDRESS_MAX: Final = 32
TUNNELS_PER_SYSTEM_MAX: Final = 16


class Quota:
    """At most `total` at once, and `each` under one key; None for no limit in all."""

    def __init__(self, each: int, total: int | None = None) -> None:
        self._each = each
        self._total = total
        self._held: Counter[str] = Counter()

    @contextmanager
    def place(self, key: str) -> Iterator[bool]:
        """Hold a place; False where there is none."""
        is_free = self._held[key] < self._each and (self._total is None or self._held.total() < self._total)
        self._held[key] += is_free
        try:
            yield is_free
        finally:
            self._held[key] -= is_free
            if not self._held[key]:
                del self._held[key]
