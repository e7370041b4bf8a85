"""What the ledgers tell of a run: each interval's rounds, why some are void, and when all was well after a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loadtest.scenarios.books import RingRound
from loadtest.scenarios.faults import Fault

NOT_HELD = "not held: no coordinator"


@dataclass(frozen=True, slots=True)
class Interval:
    """
    The ring rounds of one interval; `at_s` is its opening since the first round, `took_s` until the last ring's end.

    `members` are gateways in rings, `present` those in totals, `waiting` those that came back too often to be let in.
    """

    interval: int
    at_s: float
    took_s: float
    opened: int
    void: int
    reasons: Mapping[str, int]
    members: int
    present: int
    waiting: int


@dataclass(frozen=True, slots=True)
class FaultReport:
    """
    What a fault did; times in seconds since the first round.

    `void` of `rounds` ring rounds from its beginning until all was well.  `back_after_rounds`: the first interval, from
    0 on, after its end in which all of its gateways were in totals; `whole_after_rounds`: in which every ring opened
    with all gateways, but for those that other faults keep away or that may not come back yet; None: not in this run.
    """

    action: str
    target: str
    round: int
    processes: Sequence[str]
    gateways: int
    began_at_s: float
    ended_at_s: float | None
    void: int
    rounds: int
    reasons: Mapping[str, int]
    back_after_rounds: int | None
    whole_after_rounds: int | None
    whole_after_s: float | None


def intervals(
    by_interval: Mapping[int, Sequence[RingRound]], start_s: float, period_s: float,
    waiting: Sequence[tuple[float, int]], count: int = 0,
) -> list[Interval]:  # fmt: skip
    """
    All intervals of a run that began at `start_s` (Unix); `waiting` are samples, in seconds since then.

    One that no ledger knows of, because its coordinator was away or restored, is void for all rings of the one before;
    so are those that lack at the end of `count` that have passed.
    """
    found: list[Interval] = []
    for number, rounds in by_interval.items():
        if found:
            found += _not_held(found[-1], number, period_s)
        opens_s = min(each.ended.opened_s for each in rounds)
        ends_s = max(each.ended.ended_s for each in rounds)
        void = [each for each in rounds if not each.is_opened]
        found.append(Interval(
            interval=number, at_s=round(opens_s - start_s, 3), took_s=round(ends_s - opens_s, 3),
            opened=len(rounds) - len(void), void=len(void), reasons=reasons(void),
            members=sum(len(each.members) for each in rounds), present=sum(len(each.present) for each in rounds),
            waiting=_waiting_at(waiting, ends_s - start_s),
        ))  # fmt: skip
    return found + _not_held(found[-1], found[0].interval + count, period_s) if found else []


def _not_held(last: Interval, until: int, period_s: float) -> list[Interval]:
    """The intervals after the last one, up to and without `until`."""
    rings = last.opened + last.void
    return [
        replace(
            last, interval=number, at_s=round(last.at_s + (number - last.interval) * period_s, 3), took_s=0.0,
            opened=0, void=rings, reasons={NOT_HELD: rings}, present=0,
        )
        for number in range(last.interval + 1, until)
    ]  # fmt: skip


def reasons(void: Sequence[RingRound]) -> dict[str, int]:
    """How many rounds are void for which reason."""
    return dict(Counter(each.ended.reason or "not told" for each in void).most_common())


def is_whole(interval: Interval, rounds: Sequence[RingRound], everybody: frozenset[str], away: frozenset[str]) -> bool:
    """Whether every ring opened, with all gateways but those `away` and as many as wait for a return."""
    present = {name for each in rounds for name in each.present}
    return not interval.void and len(everybody - away - present) <= interval.waiting


def fault_report(
    fault: Fault, others: Sequence[Fault], found: Sequence[Interval],
    by_interval: Mapping[int, Sequence[RingRound]], everybody: frozenset[str], start_s: float,
) -> FaultReport:  # fmt: skip
    """What one fault did; `others` are all that were carried out."""
    began_at_s = fault.began_s - start_s
    ended_at_s = None if fault.ended_s is None else fault.ended_s - start_s
    after = [each for each in found if ended_at_s is not None and each.at_s >= ended_at_s]
    back = whole = None
    for count, each in enumerate(after):
        rounds = by_interval.get(each.interval, ())
        present = {name for ring in rounds for name in ring.present}
        if back is None and fault.gateways <= present:
            back = count
        if whole is None and is_whole(each, rounds, everybody, _away(fault, others, each.at_s + start_s)):
            whole = count
    until_s = after[whole].at_s if whole is not None else float("inf")
    meanwhile = [each for each in found if began_at_s - each.took_s <= each.at_s <= until_s]
    why: Counter[str] = Counter()
    for each in meanwhile:
        why.update(each.reasons)
    void = sum(each.void for each in meanwhile)
    return FaultReport(
        action=str(fault.event.action), target=fault.event.target, round=fault.event.round, processes=fault.processes,
        gateways=len(fault.gateways), began_at_s=round(began_at_s, 2),
        ended_at_s=None if ended_at_s is None else round(ended_at_s, 2), void=void,
        rounds=void + sum(each.opened for each in meanwhile), reasons=dict(why.most_common()),
        back_after_rounds=back, whole_after_rounds=whole,
        whole_after_s=None
        if whole is None or ended_at_s is None
        else round(after[whole].at_s + after[whole].took_s - ended_at_s, 2),
    )  # fmt: skip


def _away(fault: Fault, others: Sequence[Fault], at_unix_s: float) -> frozenset[str]:
    gone: frozenset[str] = frozenset()
    for each in others:
        if each is not fault and each.began_s <= at_unix_s and (each.ended_s is None or each.ended_s > at_unix_s):
            gone |= each.gateways
    return gone


def _waiting_at(waiting: Sequence[tuple[float, int]], at_s: float) -> int:
    """The sample after a moment: who was let in meanwhile was not, then."""
    around = [count for sampled_s, count in waiting if sampled_s >= at_s][:1] or [count for _, count in waiting[-1:]]
    before = [count for sampled_s, count in waiting if sampled_s < at_s][-1:]
    return max([*around, *before], default=0)
