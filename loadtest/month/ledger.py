"""What a month's coordinator has on its disk: deliveries as they come, and all rounds held against the meters."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing

from sqlalchemy import func, select

from coordinator.config import CoordinatorConfig
from coordinator.storage.store import Store
from coordinator.storage.tables import deliveries
from loadtest.demo.report import RecordedRounds, judge
from loadtest.month.plan import Plan
from loadtest.truth import Verdict
from protocol.dcnet.machines.effects import Ended
from protocol.wire import Outcome

_WINDOW_S = 10


class Ledger:
    """The database of a plan's coordinator, while it runs or later."""

    def __init__(self, plan: Plan) -> None:
        self._config = CoordinatorConfig.model_validate(plan.coordinator())
        self._store = Store(self._config.database_url)

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    def delivered(self, gateways: Collection[str] | None = None) -> int:
        """How many deliveries are kept: all, or those of some gateways."""
        wanted = select(func.count()).select_from(deliveries)
        if gateways is not None:
            wanted = wanted.where(deliveries.c.gateway_id.in_(gateways))
        with self._store.database.read() as connection:
            return int(connection.execute(wanted).scalar_one())

    def moments_s(self) -> list[float]:
        """When each delivery came (Unix, s), in order."""
        with self._store.database.read() as connection:
            found = connection.execute(select(deliveries.c.received_ms).order_by(deliveries.c.received_ms))
            return [moment_ms / 1000 for (moment_ms,) in found]

    def message_octets(self) -> int:
        """The octets of all messages."""
        with self._store.database.read() as connection:
            return int(connection.execute(select(func.sum(func.length(deliveries.c.message)))).scalar_one() or 0)

    def rounds(self) -> list[Ended]:
        """All ring rounds that ended."""
        return [ended for epoch in self._store.epochs.all() for ended in self._store.rounds.of_epoch(epoch.epoch)]

    def verdict(self, plan: Plan) -> Verdict:
        """All totals held against the meters.  Raises StromkreisError where there are none."""
        epochs = tuple(reversed(self._store.epochs.all()))
        members = {
            (ring.epoch, ring.ring): ring.members for each in epochs for ring in self._store.epochs.layout(each.epoch)
        }
        recorded = RecordedRounds(epochs, members, tuple(self.rounds()), plan.settings.rounds, len(members))
        meters = {each.id: (home,) for each, home in zip(plan.gateways, plan.households(), strict=True)}
        return judge(recorded, self._config.epoch, meters)


def best_rate(moments_s: Sequence[float]) -> float:
    """Most deliveries a second over ten whole seconds, or over all of them where they took less."""
    if len(moments_s) < 2:
        return 0.0
    span_s = moments_s[-1] - moments_s[0]
    if span_s < _WINDOW_S:
        return len(moments_s) / max(span_s, 1e-3)
    counts = Counter(int(each - moments_s[0]) for each in moments_s)
    return max(
        sum(counts[second + offset] for offset in range(_WINDOW_S)) / _WINDOW_S
        for second in range(int(span_s) - _WINDOW_S + 1)
    )


def latency_ms(rounds: Sequence[Ended], from_s: float, to_s: float) -> tuple[float | None, float | None]:
    """Median and 95th percentile of those that opened in a time; None where there are none."""
    found = sorted(
        (each.ended_s - each.opened_s) * 1000
        for each in rounds
        if each.outcome is Outcome.OPENED and from_s <= each.opened_s < to_s
    )
    if not found:
        return None, None
    return round(statistics.median(found), 1), round(found[min(len(found) - 1, int(0.95 * len(found)))], 1)


def closing_ledger(plan: Plan) -> closing[Ledger]:
    """A ledger that is closed on leaving."""
    return closing(Ledger(plan))
