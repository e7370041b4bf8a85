"""
The account held against the coordinator's record: asked after each start, and about a contribution whose ring is gone.

What an answer means is decided in `start_review`; here it is checked, carried out and reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from node.aggregation.contribution import Contributions
from node.aggregation.start_review import Finding, SeatStore, StartReview, judge
from node.metrics import NodeMetrics
from node.storage.repositories.beacon import BeaconRepository
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.setup.rings import last_contribution_text
from protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class AccountReview:
    """
    One gateway's.  `list_key` is the coordinator's, pinned at enrolment.

    `has_ring` says whether a ring of an epoch lives here, `leave` has it left; `now_s` is metering time, `clock`
    real time.
    """

    start: StartReview
    identity: str
    suite: Suite
    list_key: bytes
    seats: SeatStore
    metrics: NodeMetrics
    has_ring: Callable[[int], bool]
    leave: Callable[[int], None]
    now_s: Callable[[], int]
    beacon: BeaconRepository
    clock: Callable[[], float]
    doubted: int | None = None
    """An epoch that the coordinator has refused a message about: it may not know it any more."""

    def question(self, account: Contributions | None) -> wire.LastContributionRequest | None:
        """
        What the coordinator is to be asked, None where there is nothing.

        While a ring lives its member hears the RESULT, unless the coordinator does not know of that ring any more.
        """
        if account is None or (self.start.is_done and not self._is_waiting(account)):
            return None
        return wire.LastContributionRequest(*(account.last or (-1, -1)), self.start.started_ms)

    def _is_waiting(self, account: Contributions) -> bool:
        waiting = account.unsettled
        return waiting is not None and (not self.has_ring(waiting[0]) or waiting[0] == self.doubted)

    async def take(self, account: Contributions, message: wire.LastContribution) -> bool:
        """
        Carry an answer out; False for one that was not asked for (any more).

        Raises StoreError, then it is asked again; RemoteProtocolError `forged_statement` and those of `judge`.
        """
        question, own = self.question(account), account.last
        if question is None or (message.asked_epoch, message.asked_round) != (question.epoch, question.round):
            return False
        if not self.suite.verify(self.list_key, last_contribution_text(self.identity, message), message.statement):
            raise RemoteProtocolError("forged_statement", "an answer that the key pinned at enrolment did not sign")
        match judge(message, own, self.seats.seat(self.identity, message.epoch), self.suite):
            case Finding.STORE_IS_OLD:
                await self._start_anew(account, f"its last contribution (epoch {message.epoch} round {message.round})")
            case Finding.INCLUDED if own is not None:
                await account.settle(*own, included=True)
            case Finding.NOT_INCLUDED if own is not None:
                await self._not_included(account, own, is_known=bool(message.is_known))
        self.start.is_done = True
        self.doubted = None
        return True

    async def _not_included(self, account: Contributions, own: tuple[int, int], *, is_known: bool) -> None:
        """While the ring lives its RESULT says so; a ring that the coordinator does not know has no results."""
        if self.has_ring(own[0]):
            if is_known:
                return
            log.warning(
                "gateway %s: the coordinator holds no more rounds of epoch %d, which this gateway leaves: the next"
                " one has begun, or its database was put back to an earlier state", self.identity, own[0],
            )  # fmt: skip
            self.leave(own[0])
        await account.settle(*own, included=False)

    async def hold_against_keys(self, account: Contributions, known_epoch: int, bound_epoch: int) -> None:
        """
        Begin anew where the keys were bound to a later epoch than the newest that the store knows of.

        The store notes an epoch before its keys are bound to it (`Epochs`), so such a store is an old copy, whatever
        the coordinator says of its last total.  Raises StoreError.
        """
        if known_epoch < bound_epoch:
            await self._start_anew(account, f"its keys, which were in epoch {bound_epoch}")

    async def _start_anew(self, account: Contributions, than: str) -> None:
        own = account.last
        self.metrics.noted("account_started_anew")
        log.warning(
            "gateway %s: its store is older than %s; its last contribution is %s. The account starts anew with the"
            " next reading; energy until then is in no total, and what was not billed yet is settled by the register",
            self.identity, than, "none" if own is None else f"epoch {own[0]} round {own[1]}",
        )  # fmt: skip
        if account.attendance is not None:
            await account.attendance.start_anew(self.now_s())
        await self.beacon.begin_anew(self.identity, round(self.clock() * 1000))
        await account.start_anew()
