"""
What gateways ask of the enrolment log before they deal: that all members of their ring are in it, that it has grown
from the head that they saw before, and that it has the history of their last ring as they know it.

The tree is kept in memory, 64 octets an entry, and grows with the newest signed head; the database is read in a worker
thread.  All members of a ring get the same proofs, so they are made once.  Entries that do not make the signed root are
answered with nothing: the database was changed, and gateways wait.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.events import Emit, MessagesReady, StoreFailed, To
from coordinator.rings.epochs import AreaEpoch
from coordinator.storage.enrolment_log import EnrolmentLogRepository, LoggedEntry
from coordinator.threads import RETRY_S, look_up
from protocol import wire
from protocol.enrolment_log.entries import Kind, TreeHead
from protocol.enrolment_log.merkle import MerkleTree

ASKED_MAX = 8  # by one gateway in an epoch: once, and after each restart
_CACHED_MAX = 256
_HISTORIES_MAX = 65_536  # the newest: gateways ask for the one before the last
_Proofs = tuple[tuple[int, int, tuple[bytes, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Question:
    epoch: int
    ring: int
    known_size: int
    past: str
    members: Sequence[bytes]  # SHA-256 of each member's certificate, in position order


class LogProofs:
    """Answers LOG_REQUEST."""

    def __init__(self, repository: EnrolmentLogRepository, emit: Emit) -> None:
        self._repository = repository
        self._emit = emit
        self._tree = MerkleTree()
        self._places: dict[bytes, tuple[int, int]] = {}  # number and time of each certificate's entry
        self._histories: dict[str, LoggedEntry] = {}
        self._questions: dict[str, _Question] = {}
        self._asked: WeakKeyDictionary[AreaEpoch, Counter[str]] = WeakKeyDictionary()
        self._cache: dict[tuple[int, int, int], _Proofs] = {}
        self._wanted = trio.Event()

    def ask(self, identity: str, epoch: AreaEpoch, message: wire.LogRequest) -> None:
        """Answer a member of a ring; who sits in none, or asks too often, gets no answer."""
        place, number = epoch.place_of(identity), epoch.call.epoch
        asked = self._asked.setdefault(epoch, Counter())
        asked[identity] += 1
        if place is None or asked[identity] > ASKED_MAX:
            return
        rows = epoch.part_for(identity).rows(place[0].positions)
        members = [hashlib.sha256(certificate).digest() for *_, certificate in rows]
        past = f"{message.past_epoch}/{message.past_ring}"
        self._questions[identity] = _Question(number, place[0].view.ring, message.known_size, past, members)
        self._wanted.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            questions, self._questions = self._questions, {}
            try:
                answers = await look_up(self._answers, questions)
            except SQLAlchemyError as error:
                self._emit(StoreFailed.by(error, "the enrolment log cannot be read, gateways wait for its proofs"))
                self._questions = {**questions, **self._questions}
                await trio.sleep(RETRY_S)
                self._wanted.set()
                continue
            self._emit(MessagesReady(answers))

    def _answers(self, questions: dict[str, _Question]) -> list[To]:
        head = self._refresh()
        if head is None:
            return []
        found = ((identity, self._answer(head, each)) for identity, each in questions.items())
        return [To(identity, answer) for identity, answer in found if answer is not None]

    def _refresh(self) -> TreeHead | None:
        """The newest head, with the tree grown to it; None where there is none, or the entries are not its own."""
        head = self._repository.head()
        if head is None:
            return None
        for each in self._repository.entries(self._tree.size, max(0, head.size - self._tree.size)):
            self._tree.append(each.entry.leaf)
            if each.entry.kind is Kind.CERTIFICATE:
                self._places[each.entry.digest] = each.number, each.entry.time_ms
            elif each.entry.kind is Kind.HISTORY:
                self._histories[each.entry.subject] = each
                if len(self._histories) > _HISTORIES_MAX:
                    del self._histories[next(iter(self._histories))]
        is_whole = self._tree.size >= head.size and self._tree.root(head.size) == head.root
        return head if is_whole else None

    def _answer(self, head: TreeHead, question: _Question) -> wire.LogProof | None:
        key = question.epoch, question.ring, head.size
        members = self._cache.get(key)
        if members is None:
            places = [self._places.get(each) for each in question.members]
            known = [place for place in places if place is not None]
            if len(known) != len(places):
                return None
            members = tuple((at, ms, tuple(self._tree.inclusion_proof(at, head.size))) for at, ms in known)
            self._cache[key] = members
            if len(self._cache) > _CACHED_MAX:
                del self._cache[next(iter(self._cache))]
        first = question.known_size
        path = self._tree.consistency_proof(first, head.size) if 0 < first <= head.size else ()
        return wire.LogProof(
            question.epoch, head.size, head.root, head.time_ms, head.signature, tuple(path), members,
            self._history(head, question.past),
        )  # fmt: skip

    def _history(self, head: TreeHead, past: str) -> tuple[tuple[int, int, bytes, tuple[bytes, ...]], ...]:
        found = self._histories.get(past)
        if found is None or found.number >= head.size:
            return ()
        path = tuple(self._tree.inclusion_proof(found.number, head.size))
        return ((found.number, found.entry.time_ms, found.entry.digest, path),)
