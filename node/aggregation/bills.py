"""
A gateway's answers to bill requests: what is committed and not billed yet, each interval of a register in one bill.

The values that were committed to in opened totals are kept by node.aggregation.contribution with
the result of their round.  A bill is made durable, and its intervals' values deleted, in one
transaction before it leaves: after a crash the same request has the same answer, and another one over the same
intervals is declined for good.  The bills are the customer's record of what was asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from node.storage.repositories.bills import BillRecord, CommittedValue
from node.trust import TrustStore
from protocol import wire
from protocol.dcnet.billing.answers import answer_amount, answer_stages, quantum_bits
from protocol.dcnet.billing.bill import SPAN_MIN_S, Judged, Request, check_request, request_digest
from protocol.dcnet.billing.leverage import HIDING_INTERVALS_MIN
from protocol.dcnet.billing.tariff import Tariff, read_tariff, tariff_digest, unpack_intervals
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.range_proof import Entropy
from protocol.errors import InvariantError, RemoteProtocolError


@dataclass(frozen=True, slots=True)
class BillingRules:
    """What a gateway insists on; see node.config.BillingConfig."""

    span_min_s: int = SPAN_MIN_S
    hiding_min: int = HIDING_INTERVALS_MIN
    supplier: str | None = None
    keep_s: int = 100 * 86_400
    tariff: str | None = None
    listed_only: bool = True


class BillStore(Protocol):
    """What bills are kept in; see node.storage.repositories.bills.  Every method raises StoreError."""

    def bill(self, gateway: str, request: bytes) -> BillRecord | None: ...  # noqa: D102
    def committed(  # noqa: D102
        self, gateway: str, obis: str, from_s: int, to_s: int
    ) -> dict[int, CommittedValue | None]: ...  # fmt: skip
    def open_intervals(self, gateway: str) -> set[int]: ...  # noqa: D102
    def waiting(self, gateway: str) -> list[str]: ...  # noqa: D102
    async def give(  # noqa: D102
        self, gateway: str, bill: BillRecord, obis: str, intervals_s: Sequence[int], *, keep_s: int
    ) -> None: ...  # fmt: skip


class Bills:
    """One gateway's bills."""

    def __init__(
        self, bills: BillStore, gateway: str, pedersen: Pedersen, trust: TrustStore, rules: BillingRules,
        register_scaler: Callable[[str], int | None], registers_given: Callable[[str], Sequence[int]] = lambda _: (),
        may_answer: Callable[[], bool] = lambda: True, is_listed: Callable[[bytes], bool] = lambda _: True,
        entropy: Entropy = os.urandom,
    ) -> None:  # fmt: skip
        """
        `register_scaler`: the scaler in which a register (OBIS) is committed to, None as long as that is not known.
        `registers_given`: the times (Unix time, s) at which a register (OBIS) was given out beside bills.

        `is_listed` says whether an epoch's call listed a tariff, by its digest: then it is everybody's.
        `may_answer` says that the store is the newest: an older one does not know which intervals are billed.
        """
        self._bills = bills
        self._gateway = gateway
        self._pedersen = pedersen
        self._trust = trust
        self._rules = rules
        self._register_scaler = register_scaler
        self._registers_given = registers_given
        self._entropy = entropy
        self._may_answer = may_answer
        self._is_listed = is_listed
        self._lock = trio.Lock()

    async def answer(self, request: wire.BillRequest) -> wire.Bill | None:
        """
        The bill, durable; None where the answer must wait, for the result of a round or the review after a start.

        Raises RemoteProtocolError for a request that is declined for good, StoreError where nothing could be written.
        """
        digest = request_digest(request.tariff, request.intervals)
        async with self._lock:
            if not self._may_answer():
                return None
            given = self._bills.bill(self._gateway, digest)
            if given is not None:
                return _given(given)
            text, rules = tariff_digest(request.tariff), self._rules
            self._trust.check_participant(
                rules.supplier, text, request.signature, request.certificate, request.intermediates
            )
            tariff = read_tariff(request.tariff)
            if rules.tariff is not None and tariff.name != rules.tariff:
                raise RemoteProtocolError(
                    "wrong_tariff", "a tariff of another name than this gateway is configured for"
                )
            if rules.listed_only and not self._is_listed(text):
                raise RemoteProtocolError(
                    "tariff_not_listed", "no epoch that this gateway was in has listed the tariff"
                )
            indices = unpack_intervals(request.intervals, len(tariff.prices))
            asked = Request(
                tariff.obis, tariff.interval_s, [tariff.interval_s_of(index) for index in indices],
                [tariff.prices[index] for index in indices],
            )  # fmt: skip
            scaler = self._register_scaler(tariff.obis)
            found = await self._judged(asked)
            if found is None or scaler is None:
                return None
            answer = await trio.to_thread.run_sync(self._make, digest, tariff, scaler, *found)
            await self._keep(asked, text, answer)
            return answer

    async def _judged(self, asked: Request) -> tuple[Judged, list[CommittedValue]] | None:
        """
        How to answer, and the committed values of the intervals.

        None where one of them is in a round whose result is not known.
        """
        end_s = asked.intervals_s[-1] if asked.intervals_s else 0
        kept = self._bills.committed(self._gateway, asked.obis, 0, end_s)
        known = {interval: value for interval, value in kept.items() if value is not None}
        # The last contribution may wait for its result: as long, nobody knows whether its interval waits for a bill.
        open_ = {interval for interval in self._bills.open_intervals(self._gateway) if interval <= end_s}
        judged = await trio.to_thread.run_sync(self._check, asked, known.keys() | open_, kept.keys() - known.keys())
        missing = set(asked.intervals_s).difference(kept, open_)
        if missing:
            raise RemoteProtocolError(
                "interval_not_contributed", f"{len(missing)} intervals are in no opened total, or too old"
            )
        return None if open_ else (judged, [known[interval] for interval in asked.intervals_s])

    def _check(self, asked: Request, waiting: set[int], billed: set[int]) -> Judged:
        return check_request(
            asked, waiting, billed, self._registers_given(asked.obis),
            span_min_s=self._rules.span_min_s, hiding_min=self._rules.hiding_min,
        )  # fmt: skip

    def _make(
        self, request: bytes, tariff: Tariff, scaler: int, judged: Judged, committed: list[CommittedValue]
    ) -> wire.Bill:
        values, blindings = [each.value for each in committed], [each.blinding for each in committed]
        if judged.by_stages:
            return answer_stages(self._pedersen, judged.prices, values, blindings).to_wire(request)
        bits = quantum_bits(tariff.prices, tariff.unit, tariff.currency, tariff.price_scaler, scaler)
        return answer_amount(
            self._pedersen, judged, values, blindings, bits=bits, request=request, entropy=self._entropy
        ).to_wire(request)

    async def _keep(self, asked: Request, tariff_name: bytes, answer: wire.Bill) -> None:
        bill = BillRecord(answer.request, tariff_name, asked.intervals_s[-1], wire.encode(answer))
        await self._bills.give(self._gateway, bill, asked.obis, asked.intervals_s, keep_s=self._rules.keep_s)


def _given(bill: BillRecord) -> wire.Bill:
    if not bill.answer:
        raise RemoteProtocolError("interval_billed_before", "an earlier release has answered this request")
    answer = wire.decode(bill.answer, frozenset({wire.Bill}))
    if not isinstance(answer, wire.Bill):
        raise InvariantError("a bill is kept as the message that was sent")
    return answer
