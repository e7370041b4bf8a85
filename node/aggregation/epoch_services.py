"""What the epochs of all gateways of a process share: stores, trust, policies, clock and the ring link."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from node.aggregation.account_basis import BasisStore
from node.aggregation.attendance import AttendanceStore
from node.aggregation.beacon import CrowdPolicy
from node.aggregation.bills import BillingRules
from node.aggregation.contribution import AccountStore
from node.aggregation.log_check import LogCheck
from node.aggregation.ring_cache import PublicRings
from node.aggregation.start_review import SeatStore
from node.metrics import NodeMetrics
from node.process_start import ProcessStart
from node.storage.repositories.beacon import BeaconRepository
from node.trust import TrustStore
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.masks import Fleet
from protocol.dcnet.setup.calendar import CalendarPolicy, NewestEpoch
from protocol.dcnet.setup.epoch import Policy
from protocol.link import LinkContext


class EpochStore(AttendanceStore, Protocol):
    """What attendance and the newest epoch are kept in; see node.storage.repositories.attendance."""

    def newest_epoch(self, gateway: str) -> NewestEpoch | None: ...  # noqa: D102
    async def put_newest_epoch(self, gateway: str, newest: NewestEpoch) -> None: ...  # noqa: D102


class SheetStore(Protocol):
    """What price sheets are kept in; see node.storage.repositories.price_sheets.  Every method raises StoreError."""

    def is_listed(self, gateway: str, digest: bytes) -> bool: ...  # noqa: D102
    async def note(self, gateway: str, digests: Sequence[bytes], now_s: int, keep_s: int) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochServices:
    """What the epochs of all gateways of a process share."""

    suite: Suite
    link: LinkContext
    accounts: AccountStore
    attendance: EpochStore
    metrics: NodeMetrics
    trust: TrustStore
    policy: Policy
    beacon: BeaconRepository
    list_key: bytes
    listen: str
    public_host: str | None
    relay: bool
    seats: SeatStore
    bases: BasisStore
    sheets: SheetStore
    log_check: LogCheck | None = None  # None: in simulations without an enrolment log
    contribute_without_profile: bool = False  # True: until a gateway's first profile set, which there may never be
    limit_returns: bool = True  # False: members come back into totals as often as a head likes
    start: ProcessStart = field(default_factory=ProcessStart)
    calendar: CalendarPolicy = field(default_factory=CalendarPolicy)
    crowd: CrowdPolicy = field(default_factory=CrowdPolicy)
    billing: BillingRules = field(default_factory=BillingRules)
    clock: Callable[[], float] = time.time
    fleet: Fleet = field(default_factory=Fleet)
    rings: PublicRings = field(default_factory=PublicRings)
    epoch_over: Callable[[], None] = lambda: None
