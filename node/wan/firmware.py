"""
Firmware that the administrator orders: checked, fetched in parts, staged, changed over to at a quiet moment, confirmed.

Orders come with the answer to the question for profiles (node.wan.administration), each signed for one gateway; a node
of several takes a release for all of them when one of them is told to.  An order is offered until its gateway has said
how it ended, so nothing of it is kept here but what the firmware directory says: a node that is killed anywhere is
offered the order again and goes on, an image from the byte that it has.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import httpx
import trio

from node.firmware.checking import Installed, check_manifest
from node.firmware.slots import FirmwareDirectory, FirmwareStatus
from node.metrics import NodeMetrics
from node.profiles.gateway_profiles import GatewayProfiles
from node.wan.bounded_http import ask
from node.wan.certificates import refusal_text
from protocol import cms
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.logs.events import Event, Parameter
from protocol.profiles.firmware import ORDER_SIZE_MAX, FirmwareManifest, FirmwareOrder, FirmwareReceipt, FirmwareState

log = logging.getLogger(__name__)
PART_SIZE: Final = 256 << 10
_LIMITS: Final = cms.Limits(message_size=8 * ORDER_SIZE_MAX, content_size=ORDER_SIZE_MAX)
_LOOK_S: Final = 1.0  # between two looks whether the gateways are quiet, or ready
_PAUSE_S: Final = 10.0
_READY: Final = ("started", "enrolled", "linked")
_OK: Final = 200
_REFUSALS: Final = frozenset({
    "unknown_publisher", "wrong_product", "wrong_hardware", "firmware_not_valid", "firmware_downgrade",
    "minimum_version", "store_version", "firmware_digest", "bad_image",
})  # fmt: skip
"""Said by this node of the release itself; whatever else fails is tried again."""


class UpdatedGateway(Protocol):
    """
    A gateway that runs.

    `epoch` is the one that it has a running ring of, None for none.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102
    @property
    def profiles(self) -> GatewayProfiles: ...  # noqa: D102
    @property
    def is_in_round(self) -> bool: ...  # noqa: D102
    @property
    def is_delivering(self) -> bool: ...  # noqa: D102
    @property
    def epoch(self) -> int | None: ...  # noqa: D102
    def note(self, event: Event, **parameters: Parameter) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareServices:
    """
    What a node gives its firmware.

    `version` runs; `clock` is real time (Unix, s); `restart` ends the node in order; `checks` are those of /readyz.
    """

    directory: FirmwareDirectory
    hardware: str
    publishers: tuple[bytes, ...]
    version: str
    clock: Callable[[], float]
    gateways: Callable[[], Sequence[UpdatedGateway]]
    restart: Callable[[], None]
    checks: Callable[[], Mapping[str, str | None]]
    metrics: NodeMetrics


class FirmwareTaker:
    """Carries out orders for one node; `run` serves until cancelled."""

    def __init__(self, client: httpx.AsyncClient, services: FirmwareServices) -> None:
        self._client = client
        self._services = services
        self._directory = services.directory
        self._orders: dict[str, FirmwareOrder] = {}
        self._told: dict[str, tuple[int, FirmwareState]] = {}
        self._refused: dict[str, FirmwareReceipt] = {}
        self._woken = trio.Event()
        self._staging = trio.Lock()
        self._is_changing = self._is_ending = False
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    def take(self, profiles: GatewayProfiles, message: bytes, chain: Sequence[bytes]) -> None:
        """Carry an order out, in the task of `run`; whatever it is, it raises nothing."""
        try:
            order = FirmwareOrder.from_bytes(profiles.administrators_word(message, chain, _LIMITS))
            if order.gateway != profiles.identity:
                raise RemoteProtocolError("bad_order", "it is for another gateway")
        except RemoteProtocolError as error:
            if self._lines.is_due(error.reason):
                log.warning("gateway %s refuses an order for firmware: %s", profiles.identity, error)
            return
        self._orders[order.gateway] = order
        self._woken.set()

    async def run(self) -> None:
        """Confirm a release that is tried, tell what became of the last, and carry orders out."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._confirm)
            while True:
                self._woken = trio.Event()
                orders, self._orders = self._orders, {}
                for each in orders.values():
                    if await self._attempt(each) is FirmwareState.STAGED and each.activate != "restart":
                        self._change_over(each, nursery)
                if not self._orders:
                    await self._woken.wait()

    # --- the release that runs ----------------------------------------------------------------------------------------

    async def _confirm(self) -> None:
        while True:
            try:
                await self._confirm_and_note()
            except OSError as error:
                log.error("the state of the firmware cannot be written, tried again: %s", error.strerror)
                await trio.sleep(_PAUSE_S)
            else:
                return

    async def _confirm_and_note(self) -> None:
        """Wait until the gateways do their work, and say so; then note what became of the last trial."""
        status = await self._status()
        tried = status.record(status.trial)
        if tried is not None and tried.version == self._services.version:  # on a full disk another one may run
            while self._not_ready():
                await trio.sleep(_LOOK_S)
            status = await trio.to_thread.run_sync(self._directory.confirm)
            log.info("firmware %s is confirmed", self._services.version)
        outcome = status.outcome
        if outcome is None or outcome.is_noted:
            return
        while not self._services.gateways():
            await trio.sleep(_LOOK_S)
        if outcome.state is FirmwareState.RUNNING:
            self._note(Event.FIRMWARE_RUNNING, version=outcome.version, digest=outcome.sha256)
        else:
            self._note(Event.FIRMWARE_ROLLED_BACK, version=outcome.version, reason=outcome.reason)
        self._services.metrics.firmware(outcome.state.value)
        await trio.to_thread.run_sync(self._directory.noted)

    def _not_ready(self) -> bool:
        """Whether the gateways do not work yet, or could not be sent the next release."""
        checks, gateways = self._services.checks(), self._services.gateways()
        return (
            not gateways
            or any(checks.get(name) is not None for name in _READY)
            or not all(each.profiles.asked.is_set() for each in gateways)
        )

    def _note(self, event: Event, **parameters: Parameter) -> None:
        for each in self._services.gateways():
            each.note(event, **parameters)

    # --- an order -----------------------------------------------------------------------------------------------------

    async def _attempt(self, order: FirmwareOrder) -> FirmwareState | None:
        """What was said of it, None where nothing was."""
        gateway = next((each for each in self._services.gateways() if each.identity == order.gateway), None)
        if gateway is None:
            return None
        try:
            receipt = await self._carry_out(order, gateway)
            if receipt is None:
                return None
            await self._tell(receipt, gateway)
        except (httpx.HTTPError, OSError, RemoteProtocolError) as error:
            if self._lines.is_due("attempt"):
                text = str(error) or type(error).__name__
                log.warning("firmware %s is not here yet, tried again later: %s", order.manifest.version, text)
            return None
        return receipt.state

    async def _carry_out(self, order: FirmwareOrder, gateway: UpdatedGateway) -> FirmwareReceipt | None:
        """What is to be said of it; None for nothing yet.  Raises what leaves it to the next offer."""
        status = await self._status()
        if status.trial is not None:
            return None  # what becomes of that comes first
        made = partial(FirmwareReceipt.of, order, at_ms=int(self._services.clock() * 1000))
        known = _known(order, status)
        if known is not None:
            reason = "" if status.outcome is None or known is not FirmwareState.ROLLED_BACK else status.outcome.reason
            return made(known, reason=reason)
        manifest, refused = order.manifest, self._refused.get(order.gateway)
        staged = status.record(status.staged)
        if known is None and staged is not None and staged.issued_ms > order.issued_ms:
            return None  # told to another gateway later: what becomes of that comes first
        if refused is not None and refused.issued_ms == order.issued_ms:
            return refused  # offered until the administrator has read it, and noted once
        try:
            now = datetime.fromtimestamp(self._services.clock(), UTC)
            mine = self._services
            here = Installed(mine.version, status.newest, mine.hardware, mine.publishers)
            check_manifest(manifest, here, now)
            await self._fetch(manifest, gateway)
            async with self._staging:
                if self._is_ending:
                    return None
                await trio.to_thread.run_sync(self._directory.stage, order)
        except RemoteProtocolError as error:
            if error.reason not in _REFUSALS:
                raise
            self._services.metrics.firmware("refused")
            log.warning("gateway %s refuses firmware %s: %s", order.gateway, manifest.version, error)
            gateway.note(Event.FIRMWARE_REFUSED, version=manifest.version, reason=error.reason)
            self._refused[order.gateway] = made(FirmwareState.REFUSED, reason=error.reason, detail=error.detail)
            return self._refused[order.gateway]
        self._services.metrics.firmware("staged")
        gateway.note(Event.FIRMWARE_STAGED, version=manifest.version, digest=manifest.sha256)
        return made(FirmwareState.STAGED)

    async def _fetch(self, manifest: FirmwareManifest, gateway: UpdatedGateway) -> None:
        """The image, from the byte that is here already."""
        path = f"/api/v1/firmware/{gateway.identity}/{manifest.version}/image"
        size = await trio.to_thread.run_sync(self._directory.received, manifest)
        while size < manifest.size:
            headers = {"X-Gateway-Proof": gateway.profiles.query_proof()}
            response = await ask(self._client, "GET", f"{path}?offset={size}", headers=headers, size_max=PART_SIZE)
            if response.status_code != _OK or not response.content:
                raise RemoteProtocolError("refused", f"status {response.status_code}: {refusal_text(response)[:300]}")
            size = await trio.to_thread.run_sync(self._directory.append, manifest, response.content)

    async def _tell(self, receipt: FirmwareReceipt, gateway: UpdatedGateway) -> None:
        said = receipt.issued_ms, receipt.state
        if self._told.get(receipt.gateway) == said:
            return
        signed = receipt.sign(gateway.profiles.signature_key)
        body = {"receipt": base64.b64encode(signed).decode()}
        response = await ask(self._client, "POST", f"/api/v1/firmware/{receipt.gateway}/receipt", json=body)
        if response.status_code != _OK:
            raise RemoteProtocolError("refused", f"status {response.status_code}: {refusal_text(response)[:300]}")
        self._told[receipt.gateway] = said

    async def _status(self) -> FirmwareStatus:
        return await trio.to_thread.run_sync(self._directory.read)

    # --- changing over ------------------------------------------------------------------------------------------------

    def _change_over(self, order: FirmwareOrder, nursery: trio.Nursery) -> None:
        if not self._is_changing:
            self._is_changing = True
            nursery.start_soon(self._restart_when_quiet, order)

    async def _restart_when_quiet(self, order: FirmwareOrder) -> None:
        before = {each.identity: each.epoch for each in self._services.gateways()}
        while self._is_changing and not self._is_ending:
            async with self._staging:  # a release that is being unpacked is not due, and the node would end for none
                if is_quiet(self._services.gateways(), order, before):
                    await self._make_due(order)
                    continue
            await trio.sleep(_LOOK_S)

    async def _make_due(self, order: FirmwareOrder) -> None:
        try:
            status = await trio.to_thread.run_sync(self._directory.make_due)
        except OSError as error:
            log.error("firmware %s waits, its state cannot be written: %s", order.manifest.version, error.strerror)
            self._is_changing = False  # offered again, it is tried again
            return
        self._is_changing = self._is_ending = status.is_due
        staged = status.record(status.staged)
        if staged is not None:
            log.warning("the node ends for firmware %s to be started", staged.version)
            self._services.restart()


def is_quiet(
    gateways: Sequence[UpdatedGateway], order: FirmwareOrder, before: Mapping[str, int | None]
) -> bool:  # fmt: skip
    """
    Whether a node may end for an order now: no gateway is in a round or delivers.

    For `epoch` each gateway must also be in another epoch than `before`, when the release was staged, or in none.
    """
    if any(each.is_in_round or each.is_delivering for each in gateways):
        return False
    if order.activate != "epoch":
        return True
    return all(each.epoch is None or each.epoch != before.get(each.identity) for each in gateways)


def _known(order: FirmwareOrder, status: FirmwareStatus) -> FirmwareState | None:
    """What the firmware directory says of an order already."""
    sha256, current, staged = order.manifest.sha256, status.record(status.current), status.record(status.staged)
    if current is not None and current.sha256 == sha256:
        return FirmwareState.RUNNING
    outcome = status.outcome
    is_undone = outcome is not None and (outcome.sha256, outcome.state) == (sha256, FirmwareState.ROLLED_BACK)
    if outcome is not None and is_undone and order.issued_ms <= outcome.issued_ms:  # a later order tries it again
        return FirmwareState.ROLLED_BACK
    return FirmwareState.STAGED if staged is not None and staged.sha256 == sha256 else None
