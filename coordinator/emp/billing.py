"""
Bills from the commitments of verified rounds: which intervals a gateway is asked for, and whether its answer holds.

The market participant publishes a tariff (protocol.dcnet.billing.tariff), signed with a key that serves nothing else.
A bill is a row, made before its gateway is asked: `asked`, then once and for good `verified` (the amount is the one for
these prices over the committed values), `refused` (it is not) or `declined` (a rule of the gateway stands against it,
see the reason; this one may be asked again).  A gateway that owes a range proof for an
interval of the period is not asked, and what it answers is refused: a commitment that nobody has bounded may hold a
negative value.  An interval of a register is in one bill of a gateway, unless that was
declined.

Energy is billed at the price of the interval that it was committed in: what was carried, because rounds were void or
went without the gateway, has the price of the interval that took it along.  All calls block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.storage.bills import BillRecord, BillStatus, JudgedBill, NewBill
from coordinator.storage.store import Store
from coordinator.storage.tariffs import PublishedTariff
from protocol import wire
from protocol.dcnet.billing.answers import BillAnswer, check_answer, quantum_bits, tier_amount
from protocol.dcnet.billing.bill import READING_MAX, request_digest, span_rule
from protocol.dcnet.billing.leverage import STAGE_COUNT_MAX
from protocol.dcnet.billing.spikes import check_blocks
from protocol.dcnet.billing.tariff import Tariff, pack_intervals, tariff_digest, unpack_intervals
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.errors import InvariantError, RemoteProtocolError

ELEMENT_SIZE = 32
_REFUSALS = {
    "range_owed": "the gateway owes a proof of the range of what it committed to in an interval",
    "commitments_gone": "the commitments of an interval are not kept any more",
    "bad_blocks": "prices are averaged where the tariff does not single an interval out",
}
Chosen = npt.NDArray[Any]  # a flag for each of a tariff's intervals


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What a request for bills led to: bills asked, their intervals in all, gateways with nothing left to bill, gateways
    that are not asked because they owe a range proof.
    """

    bills: int
    intervals: int
    nothing_left: int
    unranged: int = 0


@dataclass(frozen=True, slots=True)
class _Layout:
    members: dict[int, tuple[str, ...]]  # by ring, in position order
    places: dict[str, tuple[int, int]]  # gateway: ring and position


class Billing:
    """Makes bills and judges what gateways answer, over the repositories of one coordinator."""

    def __init__(self, store: Store, pedersen: Pedersen) -> None:
        self.bills = store.bills
        self.tariffs = store.tariffs
        self.range_checks = store.range_checks
        self._epochs = store.epochs
        self._rounds = store.rounds
        self._totals = store.totals
        self._pedersen = pedersen
        self._asking = Lock()
        # An epoch's layout never changes; a month of days, some 6 MB for each 1,000 gateways of an area.
        self._layout = lru_cache(maxsize=40)(self._read_layout)

    # --- asking ------------------------------------------------------------------------------------------------------

    def publish(self, tariff: Tariff, signature: bytes, certificate: bytes, now_ms: int) -> PublishedTariff:
        """Keep a signed tariff.  Raises RemoteProtocolError `bad_tariff` for one too large to be sent."""
        document = tariff.to_bytes()
        if len(document) > wire.MAX_TARIFF_SIZE:
            raise RemoteProtocolError("bad_tariff", f"expected a document of at most {wire.MAX_TARIFF_SIZE} bytes")
        published = PublishedTariff(tariff_digest(document), document, signature, certificate, now_ms)
        self.tariffs.publish(published)
        return published

    def ask(self, area: str, from_s: int, to_s: int, digest: bytes, now_ms: int) -> Asked:
        """
        Make a bill for every gateway of an area that has verified intervals in [from_s, to_s) which are not billed yet.

        Raises RemoteProtocolError: `tariff_unknown`, `period_not_over`, `tariff_grid` (the intervals are not the
        tariff's, or it has no price for one of them), `tariff_register` (not a committed register of that unit).
        """
        # One at a time, so that nobody takes an interval meanwhile; rounds are written while it reads.
        with self._asking:
            published = self.tariffs.get(digest)
            tariff = published.tariff
            self._require_over(area, to_s)
            found, scaler = self._contributed(area, from_s, to_s, tariff)
            unranged = found.keys() & self.range_checks.owing(from_s, to_s)
            for gateway in unranged:  # a commitment that nobody has bounded may hold a negative value
                del found[gateway]
            self._leave_out_billed(found, tariff)
            made = [
                _new_bill(gateway, chosen, area, published, tariff.price_scaler + scaler)
                for gateway, chosen in sorted(found.items())
                if chosen.any()
            ]
            self.bills.ask(made, now_ms)
        return Asked(len(made), sum(each.interval_count for each in made), len(found) - len(made), len(unranged))

    def _require_over(self, area: str, to_s: int) -> None:
        """An interval that has not ended would be left out for good, or billed alone later."""
        newest = self._totals.newest_interval(area)
        if newest is None:
            raise RemoteProtocolError(
                "period_not_over", f"no round of area {area} has ended; is it one of coordinator.areas?"
            )
        start_s, length_s = newest
        if start_s + length_s < to_s:
            raise RemoteProtocolError("period_not_over", "the last interval of the period has not ended in this area")

    def _contributed(self, area: str, from_s: int, to_s: int, tariff: Tariff) -> tuple[dict[str, Chosen], int]:
        """By gateway the tariff's intervals in which it committed to the register in a verified total; its scaler."""
        found: dict[str, Chosen] = {}
        scalers: set[int] = set()
        committed = self._rounds.committed(area, from_s, to_s)
        for (epoch, ring), group in groupby(committed, key=lambda each: (each.epoch, each.ring)):
            rounds = list(group)
            scalers.add(self._column(epoch, tariff)[1])
            indices = [tariff.index_of(each.interval_start_s) for each in rounds]
            if None in indices:
                raise RemoteProtocolError("tariff_grid", "the tariff has no price for an interval of the period")
            members = self._layout(epoch).members[ring]
            present = _presence([each.roster for each in rounds], len(members))
            for position, gateway in enumerate(members):
                mine = np.array(indices)[present[:, position]]
                if mine.size:
                    found.setdefault(gateway, np.zeros(len(tariff.prices), bool))[mine] = True
        if len(scalers) > 1:
            raise RemoteProtocolError("tariff_register", "the register's scaler changes within the period")
        return found, max(scalers, default=0)

    def _leave_out_billed(self, found: dict[str, Chosen], tariff: Tariff) -> None:
        """An interval of a register is in one bill, whatever the tariff of that was."""
        last_s = tariff.interval_s_of(len(tariff.prices) - 1)
        here: dict[bytes, Chosen] = {}  # by tariff: which of our intervals each of its own is, -1 for none
        for gateway, intervals, digest in self.bills.billed(tariff.obis, tariff.start_s, last_s):
            if gateway not in found:
                continue
            if digest not in here:
                other = self.tariffs.get(digest).tariff
                ours = (tariff.index_of(other.interval_s_of(index)) for index in range(len(other.prices)))
                here[digest] = np.array([-1 if index is None else index for index in ours])
            taken = here[digest][_bits(intervals, len(here[digest]))]
            found[gateway][taken[taken >= 0]] = False

    def _column(self, epoch: int, tariff: Tariff) -> tuple[int, int]:
        """Which of an epoch's committed slots the tariff's register is, and its scaler."""
        record = self._epochs.get(epoch)
        if record is None:
            raise InvariantError(f"commitments of epoch {epoch}, which is not kept")
        if record.interval_s != tariff.interval_s:
            raise RemoteProtocolError("tariff_grid", f"the area's intervals have {record.interval_s} seconds")
        for column, index in enumerate(record.schema.committed):
            slot = record.schema.slots[index]
            if slot.obis == tariff.obis and slot.unit == tariff.unit:
                return column, slot.scaler
        raise RemoteProtocolError(
            "tariff_register", "the tariff's register is not committed to in its unit in this area"
        )

    # --- gateways answer ---------------------------------------------------------------------------------------------

    def message(self, gateway: str, request: bytes, intermediates: Sequence[bytes]) -> wire.BillRequest | None:
        """What the gateway is sent; None where the bill waits no more."""
        bill = self.bills.asked(gateway, request)
        if bill is None:
            return None
        published = self.tariffs.get(bill.tariff)
        return wire.BillRequest(
            published.document, published.signature, published.certificate, tuple(intermediates), bill.intervals
        )

    def judge(self, gateway: str, message: wire.Bill, now_ms: int) -> BillStatus | None:
        """Verify a gateway's bill and record it, once; None where none was waited for."""
        asked = self.bills.asked(gateway, message.request)
        if asked is None:
            return None
        tariff = self.tariffs.get(asked.tariff).tariff
        answer = BillAnswer.from_wire(message)
        amount, reason = None, ""
        try:
            amount = self._check(asked, tariff, answer)
        except RemoteProtocolError as error:
            reason = _REFUSALS.get(error.reason, "the amount is not the one for what the gateway committed to")
        status = BillStatus.REFUSED if reason else BillStatus.VERIFIED
        is_ended = self.bills.end(
            gateway, message.request, status, reason, now_ms, answer=wire.encode(message),
            judged=None if amount is None else self._judged(asked, tariff, answer, amount),
        )  # fmt: skip
        return status if is_ended else None

    def _check(self, asked: BillRecord, tariff: Tariff, answer: BillAnswer) -> int:
        """The amount, in units of the bill's scaler.  Raises RemoteProtocolError where the answer does not hold."""
        indices = unpack_intervals(asked.intervals, len(tariff.prices))
        commitments = self._commitments(asked, tariff)
        if asked.gateway in self.range_checks.owing(asked.first_s, asked.last_s + 1):
            raise RemoteProtocolError("range_owed")
        if any(index not in commitments for index in indices):
            raise RemoteProtocolError("commitments_gone")
        prices = [tariff.prices[index] for index in indices]
        register_scaler = asked.scaler - tariff.price_scaler
        bits = 0
        if len(set(prices)) > STAGE_COUNT_MAX:
            bits = quantum_bits(tariff.prices, tariff.unit, tariff.currency, tariff.price_scaler, register_scaler)
        if bool(bits) != bool(answer.proof):
            raise RemoteProtocolError("bad_bill", "an answer of the other kind")
        if answer.blocks.starts:  # by the sheet alone: a gateway gives no registers beside its bills
            rule = span_rule(tariff.obis, [tariff.interval_s_of(index) for index in indices])
            check_blocks(prices, answer.blocks.length, answer.blocks.starts, rule)
        amount = check_answer(
            self._pedersen, prices, [commitments[index] for index in indices], answer,
            bits=bits, request=asked.request, reading_max=READING_MAX,
        )  # fmt: skip
        return amount + tier_amount(tariff.tiers, answer.energy, register_scaler) if tariff.tiers else amount

    def _judged(self, asked: BillRecord, tariff: Tariff, answer: BillAnswer, amount: int) -> JudgedBill:
        register_scaler = asked.scaler - tariff.price_scaler
        bits = 0
        if answer.proof:
            bits = quantum_bits(tariff.prices, tariff.unit, tariff.currency, tariff.price_scaler, register_scaler)
        return JudgedBill(
            amount, answer.energy, register_scaler, bits, answer.blocks.length * len(answer.blocks.starts)
        )

    def decline(self, gateway: str, answer: wire.BillDeclined, now_ms: int) -> bool:
        """Record that the gateway does not answer; whether that was waited for."""
        return self.bills.end(gateway, answer.request, BillStatus.DECLINED, answer.reason, now_ms)

    def _commitments(self, asked: BillRecord, tariff: Tariff) -> dict[int, bytes]:
        """By the tariff's index what the gateway committed to in verified totals."""
        places = {
            epoch: place
            for epoch in self._epochs.covering(asked.area, asked.first_s, asked.last_s)
            if (place := self._layout(epoch).places.get(asked.gateway)) is not None
        }
        if not places:
            return {}
        of_rings = [(epoch, ring) for epoch, (ring, _) in places.items()]
        found: dict[int, bytes] = {}
        for each in self._rounds.commitments(of_rings, asked.first_s, asked.last_s):
            position = places[each.epoch][1]
            index = tariff.index_of(each.interval_start_s)
            if index is None or not each.roster >> position & 1:
                continue
            count = len(each.commitments) // ELEMENT_SIZE // each.roster.bit_count()
            rank = (each.roster & ((1 << position) - 1)).bit_count()
            column, _ = self._column(each.epoch, tariff)  # of these epochs only: others may have committed to nothing
            at = ELEMENT_SIZE * (rank * count + column)
            found[index] = each.commitments[at : at + ELEMENT_SIZE]
        return found

    def _read_layout(self, epoch: int) -> _Layout:
        layout = self._epochs.layout(epoch)
        places = {name: (ring.ring, position) for ring in layout for position, name in enumerate(ring.members)}
        return _Layout({ring.ring: ring.members for ring in layout}, places)

    def forget(self, keep_s: int) -> int:
        """Delete commitments over `keep_s` of metering time before the newest; how many ring rounds' these were."""
        return self._rounds.forget_commitments(keep_s)


def _bits(bitmap: bytes, count: int) -> Chosen:
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=count, bitorder="little").astype(bool)


def _presence(rosters: Sequence[bytes], size: int) -> Chosen:
    """A row for each round, a column for each position."""
    return np.array([_bits(roster.ljust(-(-size // 8), b"\0"), size) for roster in rosters])


def _new_bill(gateway: str, chosen: Chosen, area: str, published: PublishedTariff, scaler: int) -> NewBill:
    tariff = published.tariff
    indices: list[int] = np.flatnonzero(chosen).tolist()
    intervals = pack_intervals(indices, len(tariff.prices))
    return NewBill(
        gateway, request_digest(published.document, intervals), area, published.digest, tariff.obis,
        tariff.interval_s_of(indices[0]), tariff.interval_s_of(indices[-1]), intervals, len(indices), scaler,
    )  # fmt: skip
