"""One epoch that a gateway has joined, from its call to its last result."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import trio

from node.aggregation.context import FromCoordinator
from node.aggregation.epoch_services import EpochServices
from node.aggregation.membership import Membership
from node.aggregation.spot_checks import SpotChecks
from protocol import wire
from protocol.dcnet.setup.beacon import ListEntry
from protocol.dcnet.setup.epoch import ring_timing
from protocol.dcnet.setup.secrets import EpochSecrets

log = logging.getLogger(__name__)
_EARLY_MAX = 16  # messages of a ring that wait for its spot checks: what a greeting brings is fewer


@dataclass(slots=True)
class JoinedEpoch:
    """
    An epoch that we joined: the call of its newest try, our secrets, its tasks, the list that we showed our value for,
    and the membership once the layout is verified.
    """

    call: wire.EpochCall
    secrets: EpochSecrets
    nonce: bytes  # of this process, never stored
    entries: tuple[ListEntry, ...] = ()
    check: SpotChecks | None = None
    list_: wire.EpochList | None = None
    is_spot_checked: bool = False
    early: list[wire.Message] = field(default_factory=list)  # of the ring, while spot checks are not answered
    nursery: trio.Nursery | None = None
    membership: Membership | None = None
    are_sheets_noted: bool = False
    end_s: float = 0.0  # when its keys go
    moved: trio.Event = field(default_factory=trio.Event)  # of this end

    @property
    def first_s(self) -> float:
        """When its first round opens, real time."""
        return ring_timing(self.call).open_at_s(0)

    def hear(self, message: wire.Message) -> None:
        """A message of the coordinator about its ring: for the membership, or kept while its layout is checked."""
        if self.membership is not None:
            self.membership.post(FromCoordinator(message))
        elif self.check is not None and len(self.early) < _EARLY_MAX:
            self.early.append(message)

    async def note_price_sheets(self, services: EpochServices, identity: str) -> None:
        """
        Keep the call's list, now that a total of the epoch was opened: everybody in it was shown the same.

        Raises StoreError.
        """
        if self.are_sheets_noted:
            return
        call = self.call
        too_many = await services.sheets.note(
            identity, call.price_sheets, call.interval_start_s, services.billing.keep_s
        )
        self.are_sheets_noted = True
        if too_many:
            services.metrics.noted("price_sheets_over_limit")
            log.warning(
                "gateway %s: epoch %d lists %d price sheets more than a day may have, which are not noted",
                identity, call.epoch, too_many,
            )  # fmt: skip

    async def keep_history(self, services: EpochServices, identity: str) -> None:
        """How its rounds ended, once all have: the enrolment log must say the same.  Raises StoreError."""
        membership, log_check = self.membership, services.log_check
        leaf = None if membership is None else membership.history_leaf
        if log_check is None or membership is None or leaf is None:
            return
        if not await log_check.keep_history(identity, self.call.epoch, membership.view.ring, leaf):
            services.metrics.noted("history_not_logged")
