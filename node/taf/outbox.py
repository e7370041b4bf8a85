"""
Deliveries of what use cases have derived: one for each recipient, under an id and a sender's name of its own.

`aggregated` recipients get none: rings make their totals (node.aggregation).  Results of registration times are
delivered, all of them, however long a participant was away.  Current values (TAF 9, 10, 14) are worth little once they
are old, and a participant that is away must not fill the store: of each profile the newest `WAITING_MAX` wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from node.storage.engine import Statement
from node.storage.repositories.use_cases import UseCaseRepository, WaitingDelivery
from protocol.cosem.delivery import PeriodResult, canonical_name
from protocol.profiles.processing import Delivery, ProcessingProfile

WAITING_MAX: Final = 60


class Random(Protocol):
    """Draws octets: the security module."""

    def random(self, size: int) -> bytes: ...  # noqa: D102


class Outbox:
    """One gateway's; `clock` is real time (Unix, s)."""

    def __init__(
        self, gateway: str, repository: UseCaseRepository, random: Random, clock: Callable[[], float]
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._repository = repository
        self._random = random
        self._clock = clock
        self._made_us = 0

    def deliveries(self, profile: ProcessingProfile, result: PeriodResult) -> list[WaitingDelivery]:
        """Those of a result, to be made durable with it.  Raises StoreError."""
        return [
            WaitingDelivery(
                self._random.random(16).hex(), self._next_us(), profile.id, result.start_s, each.participant,
                each.delivery.value, self._sender(each.delivery),
            )
            for each in profile.recipients
            if each.delivery is not Delivery.AGGREGATED
        ]  # fmt: skip

    def drop_oldest(self, profile: ProcessingProfile) -> list[Statement]:
        """Make room for the next current value of a profile.  Raises StoreError."""
        waiting = [each for each in self._repository.waiting(self._gateway) if each.profile == profile.id]
        starts = sorted({each.start_s for each in waiting})[: -WAITING_MAX + 1]
        return [
            self._repository.delivered(self._gateway, each.id) for each in waiting if each.start_s in starts
        ]  # fmt: skip

    def _next_us(self) -> int:
        """The clock's time, but always later than the last: deliveries go out in this order."""
        if not self._made_us:
            self._made_us = max((each.made_us for each in self._repository.waiting(self._gateway)), default=0)
        self._made_us = max(self._made_us + 1, int(self._clock() * 1_000_000))
        return self._made_us

    def _sender(self, delivery: Delivery) -> str:
        """A pseudonym holds for one delivery: two of a household cannot be put together by it."""
        return canonical_name(self._gateway) if delivery is Delivery.DIRECT else self._random.random(16).hex()
