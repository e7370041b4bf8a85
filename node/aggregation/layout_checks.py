"""
What a gateway checks of a layout before it deals to the ring: its own ring, joins of other rings, the enrolment log.

In this order, and nothing is dealt before all of it holds.  What does not hold is kept as evidence.  An answer of the
coordinator's that does not ends the epoch's number for this gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from node.aggregation.epoch_services import EpochServices
from node.aggregation.joined_epoch import JoinedEpoch
from node.aggregation.spot_checks import REFUSED_LAYOUT, SpotChecks
from node.security.module import SecurityModule
from node.storage.errors import StoreError
from protocol import wire
from protocol.dcnet.setup.calendar import NewestEpoch
from protocol.dcnet.setup.epoch import VerifyMember, registration_grid, verify_layout
from protocol.errors import RemoteProtocolError


class LayoutChecks:
    """
    Those of one gateway, for whichever of its epochs has a layout.

    `held` begins the ring of a layout of which all has held, `drop` ends an epoch, `failed` is told of a store that
    fails; then the layout comes again.
    """

    def __init__(
        self, services: EpochServices, module: SecurityModule, post: Callable[[wire.Message], None],
        held: Callable[[JoinedEpoch, SpotChecks], Awaitable[None]], drop: Callable[[JoinedEpoch], None],
        failed: Callable[[StoreError], None],
    ) -> None:  # fmt: skip
        self._services = services
        self._module = module
        self._post = post
        self._held = held
        self._drop = drop
        self._failed = failed

    async def take_layout(self, epoch: JoinedEpoch, layout: wire.EpochLayout) -> None:
        """A layout of the list that we showed our value for.  Raises what `verify_layout` raises."""
        services, module = self._services, self._module
        try:
            view, position = verify_layout(
                epoch.call, epoch.entries, layout, module.identity, epoch.secrets.public_key, services.policy,
                self._trusts(epoch.call),
            )  # fmt: skip
        except RemoteProtocolError as error:
            await self._keep_evidence(epoch, error, layout)
            raise
        if epoch.check is None:
            epoch.check = SpotChecks(epoch.call, epoch.entries, layout, view, position, module.random_bits)
        if epoch.check.chosen and not epoch.is_spot_checked:
            self._post(epoch.check.request())
        else:
            await self._ask_log(epoch, epoch.check)

    async def take_spot_checks(self, epoch: JoinedEpoch, answer: wire.SpotCheckAnswer) -> None:
        """Only now that those of other rings hold, too, anything is dealt to ours.  Raises RemoteProtocolError."""
        if epoch.check is None or epoch.membership is not None or answer.try_ != epoch.call.try_:
            return
        try:
            epoch.check.verify(answer, self._trusts(epoch.call))
        except RemoteProtocolError as error:
            await self._refuse_layout(epoch, error, answer)
            raise
        epoch.is_spot_checked = True
        await self._ask_log(epoch, epoch.check)

    async def _ask_log(self, epoch: JoinedEpoch, check: SpotChecks) -> None:
        """Only now that all of ours are in the log for everybody to see, anything is dealt."""
        log_check = self._services.log_check
        if log_check is None:
            await self._held(epoch, check)
            return
        try:
            self._post(log_check.request(self._module.identity, epoch.call.epoch))
        except StoreError as error:  # the layout comes again
            self._failed(error)

    async def take_log_proof(self, epoch: JoinedEpoch, proof: wire.LogProof) -> None:
        """The enrolment log's entries of our ring's members.  Raises what `LogCheck.take` raises."""
        log_check = self._services.log_check
        if epoch.check is None or epoch.membership is not None or log_check is None:
            return
        if epoch.check.chosen and not epoch.is_spot_checked:
            return
        try:
            is_logged = await log_check.take(self._module.identity, proof, epoch.check.layout.members)
        except StoreError as error:  # the layout comes again
            self._failed(error)
            return
        except RemoteProtocolError as error:
            await self._refuse_layout(epoch, error, proof)
            raise
        if is_logged:
            self._services.metrics.noted("history_logged")
        await self._held(epoch, epoch.check)

    async def _note_refused(self, number: int) -> None:
        """The store knows each number that the keys are bound in, or it would look older than they are."""
        store, identity = self._services.attendance, self._module.identity
        try:
            newest = store.newest_epoch(identity)
            await store.put_newest_epoch(identity, NewestEpoch(number, 0 if newest is None else newest.start_s))
        except StoreError as error:
            self._failed(error)

    async def _refuse_layout(self, epoch: JoinedEpoch, error: RemoteProtocolError, answer: wire.Message) -> None:
        """Asked again, it could be answered until that suits: under this number there is no other layout."""
        await self._note_refused(epoch.call.epoch)
        try:
            self._module.fix_layout(epoch.call.epoch, REFUSED_LAYOUT)
        except StoreError as failed:
            self._failed(failed)
        self._drop(epoch)
        if epoch.check is not None:
            await self._keep_evidence(epoch, error, epoch.check.layout, answer)

    async def _keep_evidence(self, epoch: JoinedEpoch, error: RemoteProtocolError, *messages: wire.Message) -> None:
        """Once for an epoch: call, list and what did not hold."""
        log_check, list_ = self._services.log_check, epoch.list_
        if log_check is None or list_ is None:
            return
        epoch.list_ = None
        told = epoch.call, list_, *messages
        try:
            await log_check.keep_evidence(self._module.identity, epoch.call.epoch, str(error), told)
        except StoreError as failed:
            self._failed(failed)

    def _trusts(self, call: wire.EpochCall) -> VerifyMember:
        """Certificates count that hold to the epoch's end."""
        return partial(self._services.trust.check, until_s=registration_grid(call).time_s(call.rounds))
