"""
Draws whose commitments must be proved to lie in their range, asks them, and judges what they answer.

The draw of a round is written with its end (`coordinator.rings.round_writer`) and asked for after that.  Who has not
proved one period later owes: the total is unranged, and the ring's head starts no attempt with the member until it has
proved.  Requests are repeated as long as they are owed, also after a restart.  Proofs are checked one at a time in a
thread (some 7 ms a slot).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.events import Emit, MessagesReady, StatusChanged, StoreFailed, To
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.areas import Areas
from coordinator.rings.epochs import Phase
from coordinator.rings.round_writer import PendingRoundResult
from coordinator.storage.range_checks import CheckKey, CommittedSlot, RangeCheck, RangeCheckRepository
from coordinator.threads import RETRY_S, in_thread, look_up
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.range_proof import check_range
from protocol.dcnet.machines.range_draw import commitments_of, draw_members, range_text
from protocol.dcnet.setup.rings import bitmap, positions_of
from protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)
_TICK_S = 1.0
_LOOK_S = 30.0  # between two looks for what was excused
_AGAIN_S = 30.0  # a gateway that has not proved is asked again; under a time lapse first after half a period
_PATIENCE_S = 10.0  # at least, before a proof is overdue: a period of a time lapse is no time for a busy machine
_ASKED_PER_TICK = 200  # requests of 100 bytes: the rounds' messages go in between
_ANSWERS_MAX = 1000  # proofs that wait to be checked, of up to 128 KB; who finds it full is asked again


def draw(ending: PendingRoundResult, below: Callable[[int], int]) -> list[RangeCheck]:
    """
    What the ended round's members are to prove; `below(n)` is a secret uniform integer of [0, n).

    A head may let somebody into a sum who owes a proof: that one is drawn as well.
    """
    ended, view, call = ending.ended, ending.ring.view, ending.epoch.call
    members = draw_members(view, ended, below)
    if members:
        members |= ending.ring.left_out & ended.roster
    return [
        RangeCheck(
            ended.epoch, ended.ring, ended.round, position, view.members[position].identity,
            call.interval_start_s + ended.round * call.interval_s, call.interval_s, call.fuse_a, view.digest,
            tuple(
                CommittedSlot(slot, bits, commitment)
                for slot, bits, commitment in zip(
                    view.committed, view.bits, commitments_of(ended, ending.record.commitments, position), strict=True
                )
            ),
        )
        for position in positions_of(members)
    ]  # fmt: skip


@dataclass(slots=True)
class _Open:
    """A check that is waited for."""

    check: RangeCheck
    again_s: float  # between two requests
    owed_at_s: float
    asked_s: float = float("-inf")
    is_answered: bool = False  # since it was asked last


class RangeChecks:
    """Those of one coordinator; `run` serves until cancelled.  `present` are the gateways that are here now."""

    def __init__(
        self, checks: RangeCheckRepository, pedersen: Pedersen, areas: Areas, metrics: CoordinatorMetrics,
        present: Callable[[], Collection[str]], emit: Emit, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._checks = checks
        self._pedersen = pedersen
        self._areas = areas
        self._metrics = metrics
        self._present = present
        self._emit = emit
        self._clock = clock
        self._open: dict[CheckKey, _Open] = {}
        self._answers: dict[CheckKey, wire.RangeProof] = {}
        self._answered = trio.Event()
        now_s = clock()
        for check in checks.all():  # of a process before this one
            self._open[check.key] = _Open(check, _AGAIN_S, now_s + _AGAIN_S)
        metrics.watch_ranges(lambda: sum(each.check.owed for each in self._open.values()))

    def drawn(self, ending: PendingRoundResult) -> None:
        """A round's end is durable, and with it who was drawn."""
        now_s, period_s = self._clock(), ending.ring.view.timing.period_s
        checks = ending.checks or []
        for check in checks:
            self._open[check.key] = _Open(check, min(_AGAIN_S, period_s / 2), now_s + max(period_s, _PATIENCE_S))
            self._metrics.range_check("drawn")
        self._ask(now_s, [check.key for check in checks])

    def receive(self, identity: str, message: wire.RangeProof) -> None:
        """A gateway's proofs; those that nobody waits for, or not any more, are counted and have no effect."""
        key = message.epoch, message.ring, message.round, message.position
        waiting = self._open.get(key)
        if waiting is None or waiting.check.gateway != identity or waiting.is_answered:
            self._metrics.peer_error("unasked_range_proof")
            return
        if len(self._answers) < _ANSWERS_MAX:
            waiting.is_answered = True  # one for each time that it is asked: a wrong one costs a thread and a log line
            self._answers[key] = message
            self._answered.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_asking)
            nursery.start_soon(self._judge_all)

    # --- asking -------------------------------------------------------------------------------------------------------

    async def _keep_asking(self) -> None:
        looked_s = trio.current_time()
        while True:
            now_s = self._clock()
            if trio.current_time() >= looked_s + _LOOK_S:
                looked_s = trio.current_time()
                await self._drop_excused()
            self._ask(now_s, list(self._open))
            await self._note_owed(now_s)
            self._leave_out()
            await trio.sleep(_TICK_S)

    async def _drop_excused(self) -> None:
        """What is not in the database any more was excused by the operator, or is too old to be billed."""
        known = set(self._open)
        try:
            found = await look_up(self._checks.all)
        except SQLAlchemyError as error:
            self._emit(StoreFailed.by(error, "range checks cannot be read"))
            return
        for key in known - {each.key for each in found}:
            self._open.pop(key, None)

    def _ask(self, now_s: float, keys: Collection[CheckKey]) -> None:
        present, ready = self._present(), []
        for key in keys:
            each = self._open[key]
            if each.check.gateway in present and not 0 <= now_s - each.asked_s < each.again_s:
                if each.asked_s > float("-inf"):
                    each.again_s = min(_AGAIN_S, 2 * each.again_s)
                each.asked_s, each.is_answered = now_s, False
                ready.append(To(each.check.gateway, _request(each.check)))
                if len(ready) == _ASKED_PER_TICK:
                    break
        if ready:
            self._emit(MessagesReady(ready))

    async def _note_owed(self, now_s: float) -> None:
        late = [each for each in self._open.values() if not each.check.owed and now_s >= each.owed_at_s]
        await self._owe(late, "overdue")

    async def _owe(self, late: Collection[_Open], outcome: str) -> None:
        if not late:
            return
        try:
            await in_thread(self._checks.owe, [each.check.key for each in late])
        except SQLAlchemyError as error:
            self._emit(StoreFailed.by(error, "who owes a range proof cannot be written"))
            return
        for each in late:
            check = each.check
            each.check = replace(check, owed=True)
            self._metrics.range_check(outcome)
            log.warning(
                "epoch %d ring %d round %d is unranged: gateway %s has not proved the range of what it committed to"
                " (%s); it is left out until it has", check.epoch, check.ring, check.round, check.gateway, outcome,
            )  # fmt: skip
        self._emit(StatusChanged())

    def _leave_out(self) -> None:
        """Bring what the rings know of who owes up to date."""
        owing = {each.check.gateway for each in self._open.values() if each.check.owed}
        for epoch, ring in self._areas.rings():
            members = bitmap([ring.positions[each] for each in owing & ring.positions.keys()])
            if epoch.phase is Phase.RUNNING and members != ring.left_out:
                ring.left_out = members
                message = ring.out_notice()
                self._emit(MessagesReady([To(identity, message) for identity in ring.positions]))

    # --- judging ------------------------------------------------------------------------------------------------------

    async def _judge_all(self) -> None:
        while True:
            await self._answered.wait()
            self._answered = trio.Event()
            answers, self._answers = self._answers, {}
            for key, message in answers.items():
                waiting = self._open.get(key)
                if waiting is not None:
                    await self._judge(waiting, message)

    async def _judge(self, waiting: _Open, message: wire.RangeProof) -> None:
        check = waiting.check
        if not message.proofs:
            await self._owe([] if check.owed else [waiting], "refused")
            return
        try:
            await in_thread(self._verify, check, message.proofs)
        except RemoteProtocolError:
            await self._owe([] if check.owed else [waiting], "wrong")
            return
        while True:
            try:
                await in_thread(self._checks.proved, [check.key])
            except SQLAlchemyError as error:
                self._emit(StoreFailed.by(error, "a range proof cannot be noted"))
                await trio.sleep(RETRY_S)
            else:
                break
        self._open.pop(check.key, None)
        self._metrics.range_check("proved")
        if check.owed:
            log.info(
                "epoch %d ring %d round %d: gateway %s has proved its range late",
                check.epoch, check.ring, check.round, check.gateway,
            )  # fmt: skip
            self._leave_out()
            self._emit(StatusChanged())

    def _verify(self, check: RangeCheck, proofs: tuple[bytes, ...]) -> None:
        if len(proofs) != len(check.slots):
            raise RemoteProtocolError("bad_range_proof", f"expected {len(check.slots)} proofs")
        for each, proof in zip(check.slots, proofs, strict=True):
            text = range_text(
                check.epoch_digest, check.ring, check.round, check.position, each.slot, each.commitment, each.bits
            )
            check_range(self._pedersen, each.commitment, each.bits, text, proof)


def _request(check: RangeCheck) -> wire.RangeRequest:
    return wire.RangeRequest(
        check.epoch, check.ring, check.round, check.position, check.epoch_digest, check.interval_start_s,
        check.interval_s, check.fuse_a,
    )  # fmt: skip
