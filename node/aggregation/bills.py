"""
A gateway's answers to bill requests: what is committed and not billed yet, each interval of a register in one bill.

The values that were committed to in opened totals are kept by node.aggregation.contribution with
the result of their round.  A bill is made durable, and its intervals' values deleted, in one
transaction before it leaves: after a crash the same request has the same answer, and another one over the same
intervals is declined for good.  The bills are the customer's record of what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from node.aggregation.contribution import blinding_label
from node.storage.repositories.bills import BillRecord
from node.trust import TrustStore
from protocol import wire
from protocol.dcnet.billing.bill import PRICE_MAX, Bill, check_request, make_bill, request_digest
from protocol.dcnet.billing.tariff import Tariff, read_tariff, tariff_digest, unpack_intervals
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class BillingRules:
    """What a gateway insists on; see node.config.BillingConfig."""

    priced_count_min: int = 96
    price_max: int = PRICE_MAX
    supplier: str | None = None
    keep_s: int = 100 * 86_400


class BillStore(Protocol):
    """What bills are kept in; see node.storage.repositories.bills.  Every method raises StoreError."""

    def bill(self, gateway: str, request: bytes) -> BillRecord | None: ...  # noqa: D102
    def committed(self, gateway: str, obis: str, from_s: int, to_s: int) -> dict[int, int | None]: ...  # noqa: D102
    def open_intervals(self, gateway: str) -> set[int]: ...  # noqa: D102
    async def give(  # noqa: D102
        self, gateway: str, bill: BillRecord, obis: str, intervals_s: Sequence[int], *, keep_s: int
    ) -> None: ...  # fmt: skip


class Bills:
    """One gateway's bills."""

    def __init__(
        self, bills: BillStore, gateway: str, pedersen: Pedersen, blind: Callable[[bytes], int], trust: TrustStore,
        rules: BillingRules,
    ) -> None:  # fmt: skip
        self._bills = bills
        self._gateway = gateway
        self._pedersen = pedersen
        self._blind = blind
        self._trust = trust
        self._rules = rules
        self._lock = trio.Lock()

    async def answer(self, request: wire.BillRequest) -> wire.Bill | None:
        """
        The bill, durable; None where the answer must wait for the result of a round.

        Raises RemoteProtocolError for a request that is declined for good, StoreError where nothing could be written.
        """
        digest = request_digest(request.tariff, request.intervals)
        async with self._lock:
            given = self._bills.bill(self._gateway, digest)
            if given is not None:
                return wire.Bill(digest, given.amount, given.blinding)
            text, rules = tariff_digest(request.tariff), self._rules
            self._trust.check_participant(
                rules.supplier, text, request.signature, request.certificate, request.intermediates
            )
            tariff = read_tariff(request.tariff)
            indices = unpack_intervals(request.intervals, len(tariff.prices))
            prices = [tariff.prices[index] for index in indices]
            values = self._values(tariff, indices, prices)
            if values is None:
                return None
            bill = await trio.to_thread.run_sync(self._make, tariff, indices, prices, values)
            answer = wire.Bill(digest, bill.amount_bytes(), bill.blinding.to_bytes(32, "little"))
            await self._keep(tariff, indices, text, answer)
            return answer

    def _values(self, tariff: Tariff, indices: list[int], prices: list[int]) -> list[int] | None:
        """The committed values of the intervals; None where one of them is in a round whose result is not known."""
        intervals = [tariff.interval_s_of(index) for index in indices]
        kept = self._bills.committed(
            self._gateway, tariff.obis, tariff.start_s, tariff.interval_s_of(len(tariff.prices))
        )
        billed = {interval for interval, value in kept.items() if value is None}
        check_request(
            intervals, prices, billed, priced_count_min=self._rules.priced_count_min, price_max=self._rules.price_max
        )
        known = {interval: value for interval, value in kept.items() if value is not None}
        missing = [interval for interval in intervals if interval not in known]
        if missing:
            if self._bills.open_intervals(self._gateway).issuperset(missing):
                return None
            raise RemoteProtocolError(
                "interval_not_contributed", f"{len(missing)} intervals are in no opened total, or too old"
            )
        return [known[interval] for interval in intervals]

    def _make(self, tariff: Tariff, indices: list[int], prices: list[int], values: list[int]) -> Bill:
        blindings = [
            self._blind(blinding_label(self._gateway, tariff.obis, tariff.interval_s_of(index))) for index in indices
        ]
        return make_bill(self._pedersen, prices, values, blindings)

    async def _keep(self, tariff: Tariff, indices: list[int], tariff_name: bytes, answer: wire.Bill) -> None:
        intervals_s = [tariff.interval_s_of(index) for index in indices]
        bill = BillRecord(answer.request, tariff_name, intervals_s[-1], answer.amount, answer.blinding)
        await self._bills.give(self._gateway, bill, tariff.obis, intervals_s, keep_s=self._rules.keep_s)
