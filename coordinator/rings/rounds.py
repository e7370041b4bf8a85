"""
What gateways say in a running ring, and carrying out what its round ledger answers.

The end of a round is durable before it is announced (`coordinator.rings.round_writer`); all else is sent at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from coordinator.events import Emit, MessagesReady, MisbehaviourReported, RoundWritten, StatusChanged, To
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.epochs import AreaEpoch, EpochRing
from coordinator.rings.round_writer import PendingRoundResult, RoundWriter
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.range_checks import RangeCheck
from coordinator.storage.rounds import RoundRepository
from protocol import wire
from protocol.dcnet.machines.effects import LedgerEffect, Note, Persist, ReportMisbehaviour, ToMember, ToRing
from protocol.dcnet.setup.rings import RingView
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter

log = logging.getLogger(__name__)
HEAD_AT_S = 0.5  # between two broadcasts of one head's address; a head that is started anew takes longer


class Rounds:
    """The running rings' messages, heads and the ends of their rounds."""

    def __init__(
        self,
        rounds: RoundRepository,
        irrevocable: IrrevocableLog,
        enrolled: Callable[[], Mapping[str, int]],
        metrics: CoordinatorMetrics,
        emit: Emit,
        draw: Callable[[PendingRoundResult], list[RangeCheck]],
        drawn: Callable[[PendingRoundResult], None],
    ) -> None:
        """`draw` says who proves ranges of an ended round, `drawn` is called when that is durable and announced."""
        self.writer = RoundWriter(rounds, irrevocable, enrolled, emit, self._on_written, draw)
        self._drawn = drawn
        self._metrics = metrics
        self._emit = emit
        self._lines = LogLimiter(PEER_LINE_S, time.monotonic)

    def receive(self, identity: str, epoch: AreaEpoch, message: wire.Message, now_s: float) -> None:
        """A gateway's message about its ring.  Raises RemoteProtocolError where it breaks a rule."""
        place = epoch.place_of(identity)
        ledger = None if place is None else place[0].ledger
        if place is None or ledger is None:
            self._send(identity, wire.Refused(epoch.call.epoch, "this gateway sits in no running ring of the epoch"))
            return
        ring, position = place
        match message:
            case wire.HeadAt():
                if message.term == ledger.term and ring.view.head_of(message.term) == position:
                    self._on_head_at(ring, message, now_s)
            case wire.Relay():
                if message.position >= ring.view.size:
                    raise RemoteProtocolError("no_such_member", "a relayed message for nobody")
                if len(message.sealed) > _relayed_bytes_max(ring.view):
                    raise RemoteProtocolError("oversized_message", "a relayed message larger than any of its ring")
                forwarded = wire.Relay(message.epoch, message.ring, position, message.sealed)
                self._send(ring.view.members[message.position].identity, forwarded)
            case wire.TwoResults():
                self.carry_out(epoch, ring, ledger.receive(position, message, now_s))
                if self._lines.is_due(f"{message.epoch} {message.ring}"):
                    log.error(
                        "epoch %d ring %d: %s holds two signed results of round %d: the database was put back within"
                        " the epoch, or somebody has the epoch's result key",
                        message.epoch, message.ring, identity, message.round,
                    )  # fmt: skip
            case wire.RingTotal() | wire.RingVoid() | wire.CorruptSum() if message.round >= epoch.rounds:
                self._send(identity, wire.Refused(epoch.call.epoch, "the next epoch has begun"))
            case _:
                if isinstance(message, wire.HeadSilent) and ring.head_at is not None:
                    self._send(identity, ring.head_at)
                self.carry_out(epoch, ring, ledger.receive(position, message, now_s))

    def _on_head_at(self, ring: EpochRing, message: wire.HeadAt, now_s: float) -> None:
        """Pass it on to the ring, at most every HEAD_AT_S where a head repeats it: a member that missed it asks."""
        is_new = ring.head_at is None or ring.head_at.term != message.term
        ring.head_at = message
        if is_new or abs(now_s - ring.head_at_sent_s) >= HEAD_AT_S:
            ring.head_at_sent_s = now_s
            for member in ring.positions:
                self._send(member, message)

    def _report(
        self, epoch: AreaEpoch, ring: EpochRing, reporter: int, reported: int, misbehaviour: str, round_: int
    ) -> None:
        members, call = ring.view.members, epoch.call
        self._emit(
            MisbehaviourReported(
                members[reporter].identity, members[reported].identity, misbehaviour, call.area, call.epoch,
                ring.view.ring, round_,
            )
        )  # fmt: skip

    def _send(self, identity: str, message: wire.Message) -> None:
        self._emit(MessagesReady([To(identity, message)]))

    def carry_out(self, epoch: AreaEpoch, ring: EpochRing, instructions: Sequence[LedgerEffect]) -> None:
        """Do what a ledger says, in its order."""
        ending: PendingRoundResult | None = None
        for each in instructions:
            match each:
                case Persist(record):
                    ending = PendingRoundResult(record, ring, epoch)
                    self.writer.add(ending)
                case ToMember() | ToRing() if ending is not None:
                    ending.then.append(each)
                case ToMember() | ToRing():
                    self._announce(ring, each)
                case ReportMisbehaviour(round_, reporter, position, misbehaviour):
                    self._report(epoch, ring, reporter, position, misbehaviour.name.lower(), round_)
                case Note(name):
                    self._metrics.peer_error(name)
                    if name == "head_replaced":
                        log.info("epoch %d ring %d: head replaced", epoch.call.epoch, ring.view.ring)
                        ring.head_at = None

    def _announce(self, ring: EpochRing, announce: ToMember[wire.Message] | ToRing) -> None:
        message = announce.message
        if isinstance(message, wire.Result) and self.writer.is_waiting(message.epoch, message.ring, message.round):
            return  # who asks while the disk is busy hears it when it is durable, or asks again
        if isinstance(message, wire.LeftOut):  # of the ledger's: others may be left out beside
            message = ring.out_notice()
        targets = ring.positions.values() if isinstance(announce, ToRing) else [announce.position]
        for position in targets:
            if isinstance(message, wire.Appoint) and position != ring.view.head_of(message.term):
                # Only the appointed needs the appointment; the others wait for its signed address.
                if ring.head_at is not None and ring.head_at.term == message.term:
                    self._send(ring.view.members[position].identity, ring.head_at)
                continue
            self._send(ring.view.members[position].identity, message)

    def _on_written(self, ending: PendingRoundResult) -> None:
        self._observe(ending)
        for announce in ending.then:
            self._announce(ending.ring, announce)
        self._drawn(ending)

    def _observe(self, ending: PendingRoundResult) -> None:
        ended, size = ending.ended, ending.ring.view.size
        seconds = ended.ended_s - ended.opened_s
        opened = ended.outcome is wire.Outcome.OPENED
        if opened:
            present = ended.roster.bit_count()
            self._metrics.areas.opened(ending.epoch.call.area, ended.ended_s)
            self._metrics.round_opened(duration_s=seconds, attempt=ended.attempt, present=present, size=size)
            if ending.ring.view.committed and not ended.verified:
                self._metrics.peer_error("total_unverified")
                log.warning(
                    "epoch %d ring %d round %d is not verified: its total is not what its members committed to",
                    ended.epoch, ended.ring, ended.round,
                )  # fmt: skip
        else:
            self._metrics.round_void(attempt=ended.attempt)
            self._metrics.areas.void(ending.epoch.call.area, ended.reason)
            log.warning("epoch %d ring %d round %d is void: %s", ended.epoch, ended.ring, ended.round, ended.reason)
        self._emit(RoundWritten(ended.epoch, ended.ring))
        self._emit(StatusChanged())


def _relayed_bytes_max(view: RingView) -> int:
    """
    More than any ring message and its seal take: its words, what it commits to with the blindings, a MAC or a signed
    nonce for every member.  What waits for a member that does not read is bounded by it, times the queue of its link.
    """
    return 2048 + 8 * view.word_count + 96 * view.committed_count + 96 * view.size
