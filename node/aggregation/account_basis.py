"""
What a gateway's account with rings stands on: the registers that its signed profiles select, without a gap in time.

Looked at once for each epoch, at its call, for all of the epoch: within one nothing changes, so whoever signs profiles
takes no household out of a total, or into it, in a round of his choice.  Where profiles select other registers than
before, or left a gap, the account begins anew: the energy of the gap is in no total, the difference of the two
selections neither, and the return is counted like that of a store that was lost (no token, four hours until the first).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from node.metrics import NodeMetrics
from node.profiles.contribution_rule import ContributionRule, Selection
from node.profiles.gateway_profiles import Note
from node.storage.errors import StoreError
from node.storage.repositories.account_basis import AccountBasis
from protocol import wire
from protocol.dcnet.setup.schema import Schema
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event

log = logging.getLogger(__name__)
_NONE = AccountBasis(b"", 0)


class BasisStore(Protocol):
    """Where it is kept; see node.storage.repositories.account_basis.  Methods raise StoreError."""

    def basis(self, gateway: str) -> AccountBasis | None: ...  # noqa: D102
    async def put(self, gateway: str, basis: AccountBasis) -> None: ...  # noqa: D102


class ProfiledAccount:
    """
    That of one gateway in `area`; `note` puts events into its logs.

    `ring_begins` is told when a ring's first interval begins (metering time, Unix, s): what profiles say of meter
    exchanges then counts for all of it.
    """

    def __init__(
        self, store: BasisStore, rule: ContributionRule, gateway: str, area: str, metrics: NodeMetrics, note: Note,
        ring_begins: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.ring_begins = ring_begins
        self._store = store
        self._rule = rule
        self._gateway = gateway
        self._area = area
        self._metrics = metrics
        self._note = note
        self._noted: str | None = None  # the reason of the last note, "" for one that contributions begin

    async def select(self, call: wire.EpochCall, schema: Schema, now_s: int) -> Selection:
        """
        What goes into an epoch; `now_s` is metering time.

        Raises what `ContributionRule.select` raises: then there is no part in this epoch.  Raises StoreError.
        """
        end_s = call.interval_start_s + call.rounds * call.interval_s
        try:
            selection = self._rule.select(schema, call.interval_s, call.interval_start_s, end_s)
        except RemoteProtocolError as error:
            if not await self._has_ended(schema, now_s):
                self._say(error.reason)
            raise
        self._say("")
        return selection

    async def review(self, schema: Schema | None, now_s: int, failed: Callable[[StoreError], None]) -> None:
        """Note where nothing may be contributed any more at `now_s`, metering time; `failed` is told of a store's."""
        try:
            await self._has_ended(schema, now_s)
        except StoreError as error:  # the next call tries again
            failed(error)

    async def _has_ended(self, schema: Schema | None, now_s: int) -> bool:
        reason = self._rule.why_not(schema, now_s)
        if reason is None:
            return False
        self._say(reason)
        if self._store.basis(self._gateway) != _NONE:
            await self._store.put(self._gateway, _NONE)
        return True

    def must_begin_anew(self, selection: Selection, schema: Schema) -> bool:
        """
        Whether an account that there is stands on something else than `selection`.  Raises StoreError.

        One from before this was noted stands on all registers of all meters.
        """
        basis = self._store.basis(self._gateway)
        if basis is None:
            return selection.digest != self._rule.of_all(schema).digest
        return basis.selection != selection.digest or selection.since_s > basis.until_s

    async def follow(self, selection: Selection, call: wire.EpochCall) -> None:
        """The account stands on this now, to the end of an epoch.  Raises StoreError."""
        basis = AccountBasis(selection.digest, call.interval_start_s + call.rounds * call.interval_s)
        if self._store.basis(self._gateway) != basis:
            await self._store.put(self._gateway, basis)

    def _say(self, reason: str) -> None:
        if reason == self._noted or (self._noted is None and not self._rule.version):
            return
        self._noted = reason
        version = self._rule.version
        if reason:
            self._metrics.noted("contributions_ended")
            log.warning(
                "gateway %s: its profiles (version %d) let nothing more into the totals of area %s, from the next"
                " epoch on: %s", self._gateway, version, self._area, reason,
            )  # fmt: skip
            self._note(Event.CONTRIBUTIONS_ENDED, area=self._area, version=version, reason=reason)
        else:
            self._note(Event.CONTRIBUTIONS_BEGUN, area=self._area, version=version)
