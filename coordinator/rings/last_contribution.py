"""
Answers to LAST_CONTRIBUTION_REQUEST, from what is durable only, read in a worker thread.

A gateway that has started does not know whether its store is the newest there ever was: one that was put back, or begun
anew, would contribute energy twice and answer for intervals that are billed.  The rosters of opened totals tell it.  So
that they tell all, an answer waits until every round has ended in which the process before may have shared.

A gateway has one question waiting at most, its newest: however fast it asks, it costs one look at a time.  The places
of gateways in the last epochs are kept in memory, since thousands ask at once after their node was started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.events import Emit, MessagesReady, StoreFailed, To
from coordinator.rings.areas import Areas
from coordinator.storage.epochs import EpochRepository
from coordinator.storage.rounds import RoundRepository
from coordinator.threads import RETRY_S, look_up
from protocol import wire
from protocol.dcnet.setup.rings import last_contribution_text

_EPOCHS_MAX = 128  # how far back a total is looked for: a month of epochs of 6 h
_UNSIGNED = bytes(64)
_PLACES_MAX = 8  # epochs whose places are kept: of 10,000 gateways, a megabyte each


@dataclass(frozen=True, slots=True)
class _Living:
    """A living epoch's ring with the gateway in it, and the last round that it may have shared in."""

    epoch: int
    ring: int
    last_round: int


class LastContributions:
    """Which opened total was a gateway in last?  `areas` say whether an epoch's rounds may still end."""

    def __init__(
        self, epochs: EpochRepository, rounds: RoundRepository, areas: Areas, sign: Callable[[bytes], bytes], emit: Emit
    ) -> None:  # fmt: skip
        """`sign` signs with the key that gateways pin at enrolment."""
        self._epochs = epochs
        self._rounds = rounds
        self._areas = areas
        self._sign = sign
        self._emit = emit
        self._questions: dict[str, tuple[str, wire.LastContributionRequest]] = {}
        self._waiting: dict[tuple[int, int], set[str]] = {}  # who waits for a round of this epoch and ring to end
        self._unanswered: dict[str, tuple[str, wire.LastContributionRequest]] = {}
        self._asked = trio.Event()
        self._places: dict[int, Mapping[str, tuple[int, int]]] = {}

    def ask(self, identity: str, area: str, question: wire.LastContributionRequest) -> None:
        """Answer a gateway of an area, unless it asks about something else before."""
        self._questions[identity] = area, question
        self._asked.set()

    def round_ended(self, epoch: int, ring: int) -> None:
        """A round's end is durable: whoever waited for it may be answered now."""
        for identity in self._waiting.pop((epoch, ring), ()):
            if (question := self._unanswered.pop(identity, None)) is not None:
                self._questions.setdefault(identity, question)
                self._asked.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            questions, self._questions = self._questions, {}
            for identity, (area, question) in questions.items():
                try:
                    answer = await look_up(self._answer, identity, area, question, self._living(identity, question))
                except SQLAlchemyError as error:  # it asks again
                    self._emit(StoreFailed.by(error, "gateways get no answer, the round ledger cannot be read"))
                    await trio.sleep(RETRY_S)
                    continue
                if isinstance(answer, _Living):
                    self._waiting.setdefault((answer.epoch, answer.ring), set()).add(identity)
                    self._unanswered[identity] = area, question
                else:
                    statement = self._sign(last_contribution_text(identity, answer))
                    self._emit(MessagesReady([To(identity, replace(answer, statement=statement))]))

    def _living(self, identity: str, question: wire.LastContributionRequest) -> list[_Living]:
        found = []
        for area in self._areas.areas.values():
            for epoch in area.epochs:
                place = epoch.place_of(identity)
                if place is None:
                    continue
                view, number = place[0].view, epoch.call.epoch
                last = view.timing.round_at(question.started_ms / 1000)
                if number == question.epoch:
                    last = max(last, question.round)
                found.append(_Living(number, view.ring, min(last, epoch.rounds - 1)))
        return found

    def _answer(
        self, identity: str, area: str, question: wire.LastContributionRequest, living: list[_Living]
    ) -> wire.LastContribution | _Living:
        """The ring in which a round has not ended yet, durably, in which it may have shared; else the answer."""
        for each in living:
            if self._rounds.ended_count(each.epoch, each.ring, each.last_round) <= each.last_round:
                return each
        asked = question.epoch, question.round
        is_known = self._is_known(identity, question.epoch, living)
        for record in self._epochs.newest_of(area, question.epoch, _EPOCHS_MAX):
            place = self._places_of(record.epoch).get(identity)
            last = None if place is None else self._rounds.last_opened_with(record.epoch, *place)
            if place is not None and last is not None:
                return wire.LastContribution(
                    *asked, is_known, record.epoch, place[0], last.round, record.interval_of(last.round), last.roster,
                    last.signature, _UNSIGNED,
                )  # fmt: skip
        return wire.LastContribution(*asked, is_known, -1, 0, -1, 0, b"", b"", _UNSIGNED)

    def _is_known(self, identity: str, epoch: int, living: list[_Living]) -> int:
        """
        Not where the epoch lives no more and has rounds that never ended here: the next one began earlier, or the
        database was put back.
        """
        if any(each.epoch == epoch for each in living):
            return 1
        place, record = self._places_of(epoch).get(identity), self._epochs.get(epoch)
        if place is None or record is None:
            return 0
        return int(self._rounds.ended_count(epoch, place[0], record.rounds - 1) == record.rounds)

    def _places_of(self, epoch: int) -> Mapping[str, tuple[int, int]]:
        """Ring and position of each gateway of an epoch; a layout that is durable is so for good."""
        known = self._places.get(epoch)
        if known is None:
            known = {
                identity: (ring.ring, position)
                for ring in self._epochs.layout(epoch)
                for position, identity in enumerate(ring.members)
            }
            if known:
                self._places[epoch] = known
            if len(self._places) > _PLACES_MAX:
                del self._places[next(iter(self._places))]
        return known
