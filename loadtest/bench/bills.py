"""
What it costs the coordinator to judge a month's bill: from its own database, as the billing service does it.

    python -m loadtest.bench bills

A gateway sat in one ring of 64 for 31 days of 96 quarter hours, two registers committed to.  Only its commitments are
real: nobody reads the others'.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import process_time

from coordinator.emp.billing import Billing
from coordinator.storage.bills import BillStatus
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from loadtest.bench.measure import Row, Spread
from protocol import wire
from protocol.dcnet.billing.answers import BillAnswer, answer_amount, answer_stages, quantum_bits
from protocol.dcnet.billing.bill import Judged
from protocol.dcnet.billing.leverage import STAGE_COUNT_MAX
from protocol.dcnet.billing.tariff import Tariff
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA

_START_S = 1_772_323_200  # 2026-03-01 00:00 UTC
_DAYS, _ROUNDS, _MEMBERS = 31, 96, 64
_AREA = "north"


class _Month:
    """A coordinator's database after a month, and what the gateway at position 7 committed to."""

    def __init__(self, store: Store, days: int) -> None:
        self.store = store
        self.intervals = days * _ROUNDS
        self._draw = random.Random(7)
        self.pedersen = Pedersen(Edwards25519())
        self.billing = Billing(store, self.pedersen)
        self.gateway = "ESTK0000000007"
        order = self.pedersen.group.order
        self.readings = [self._draw.randrange(2500) for _ in range(self.intervals)]
        self.blindings = [self._draw.randrange(1, order) for _ in range(self.intervals)]
        for day in range(days):
            self._play(day)

    def _play(self, day: int) -> None:
        start_s, everybody = _START_S + day * _ROUNDS * 900, (1 << _MEMBERS) - 1
        epoch = EpochRecord(day, _AREA, VERIFIED_SCHEMA, _ROUNDS, start_s, 900)
        self.store.epochs.add(epoch, [RingLayout(day, 0, tuple(f"ESTK{n:010d}" for n in range(_MEMBERS)))])
        slots = len(VERIFIED_SCHEMA.committed)
        ended, commitments = [], {}
        for round_ in range(_ROUNDS):
            at = day * _ROUNDS + round_
            row = [self._draw.randbytes(32) for _ in range(_MEMBERS * slots)]
            row[7 * slots] = self.pedersen.commit(self.readings[at], self.blindings[at])
            commitments[day, 0, round_] = b"".join(row)
            total = (_MEMBERS, *(0 for _ in VERIFIED_SCHEMA.slots[1:]))
            ended.append(
                Ended(
                    day, 0, round_, wire.Outcome.OPENED, 0, 0, everybody, everybody, total, True, "", start_s, start_s
                )
            )  # fmt: skip
        self.store.rounds.record_many(ended, commitments)

    def judge(self, prices: Sequence[int]) -> float:
        """Ask for the month by these prices and judge the answer: CPU time of the judging alone, in ms."""
        obis = VERIFIED_SCHEMA.slots[VERIFIED_SCHEMA.committed[0]].obis or ""
        tariff = Tariff(f"{self._draw.random()}", obis, "Wh", "ct", -5, _START_S, 900, tuple(prices))
        digest = self.billing.publish(tariff, bytes(70), b"certificate", 0).digest
        self.billing.ask(_AREA, _START_S, _START_S + self.intervals * 900, digest, 0)
        request = dict(self.billing.bills.outstanding())[self.gateway]
        answer = self._answer(tariff, request).to_wire(request)
        begin = process_time()
        status = self.billing.judge(self.gateway, answer, 0)
        took_ms = 1000 * (process_time() - begin)
        if status is not BillStatus.VERIFIED:
            raise RuntimeError(f"the bill is {status}")
        for gateway, other in self.billing.bills.outstanding():
            self.billing.decline(gateway, wire.BillDeclined(other, "not in this benchmark"), 0)
        self._give_back()
        return took_ms

    def _answer(self, tariff: Tariff, request: bytes) -> BillAnswer:
        if len(set(tariff.prices)) <= STAGE_COUNT_MAX:
            return answer_stages(self.pedersen, tariff.prices, self.readings, self.blindings)
        scaler = VERIFIED_SCHEMA.slots[VERIFIED_SCHEMA.committed[0]].scaler
        bits = quantum_bits(tariff.prices, tariff.unit, tariff.currency, tariff.price_scaler, scaler)
        judged = Judged(tariff.prices, by_stages=False)
        return answer_amount(
            self.pedersen, judged, self.readings, self.blindings, bits=bits, request=request,
            entropy=self._draw.randbytes,
        )  # fmt: skip

    def _give_back(self) -> None:
        """The month may be billed again: an interval is in one bill otherwise."""
        with self.store.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM bills")


def rows(*, quick: bool = False) -> list[Row]:
    """A month of quarter hours by three kinds of tariff."""
    days, count = (3, 3) if quick else (_DAYS, 15)
    out = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder) / 'coordinator.sqlite'}")
        month = _Month(store, days)
        draw = random.Random(3)
        for distinct in (3, 96, month.intervals):
            steps = draw.sample(range(1, 6000), distinct)
            prices = [steps[index % distinct] for index in range(month.intervals)]
            month.judge(prices)
            took = Spread.of([month.judge(prices) for _ in range(count)])
            what = f"judge a bill over {month.intervals:,} intervals at {distinct:,} prices, ring of {_MEMBERS}"
            out.append(Row(what, "ms", took, note="from the database to the verdict in it"))
        store.close()
    return out
