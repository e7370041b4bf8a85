"""
Answers to CONTRIBUTION_STATUS_REQUEST, from what is durable only, read in a worker thread.

A gateway has one question waiting at most, its newest: however fast it asks, it costs one look at a time.
"""

from __future__ import annotations

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.events import Emit, MessagesReady, StoreFailed, To
from coordinator.rings.areas import Areas
from coordinator.storage.epochs import EpochRepository
from coordinator.storage.rounds import RoundRepository
from coordinator.threads import RETRY_S, look_up
from protocol import wire


class ContributionStatuses:
    """Was a gateway in an opened total?  `areas` say whether an epoch's rounds may still end."""

    def __init__(self, epochs: EpochRepository, rounds: RoundRepository, areas: Areas, emit: Emit) -> None:
        self._epochs = epochs
        self._rounds = rounds
        self._areas = areas
        self._emit = emit
        self._questions: dict[str, wire.ContributionStatusRequest] = {}
        self._asked = trio.Event()

    def ask(self, identity: str, question: wire.ContributionStatusRequest) -> None:
        """Answer a gateway, unless it asks about something else before."""
        self._questions[identity] = question
        self._asked.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            questions, self._questions = self._questions, {}
            for identity, question in questions.items():
                is_living = self._areas.epoch(question.epoch) is not None
                try:
                    answer = await look_up(self._answer, identity, question, is_living)
                except SQLAlchemyError as error:  # it asks again
                    self._emit(StoreFailed.by(error, "gateways get no answer, the round ledger cannot be read"))
                    await trio.sleep(RETRY_S)
                    continue
                if answer is not None:
                    self._emit(MessagesReady([To(identity, answer)]))

    def _answer(self, identity: str, question: wire.ContributionStatusRequest, is_living: bool) -> wire.Message | None:
        """A round of a living epoch that is still open has no answer yet."""
        rings = self._epochs.layout(question.epoch)
        mine = next(((ring, ring.members.index(identity)) for ring in rings if identity in ring.members), None)
        if mine is None:
            return wire.Refused(question.epoch, "this gateway sat in no ring of the epoch")
        ring, position = mine
        ended = self._rounds.get(question.epoch, ring.ring, question.round)
        if ended is None and is_living:
            return None
        included = ended is not None and ended.outcome is wire.Outcome.OPENED and bool(ended.roster >> position & 1)
        return wire.ContributionStatus(question.epoch, question.round, int(included))
