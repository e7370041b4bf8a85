"""
Orders of the administrator to open a tunnel for a market participant (BSI TR-03109-1, scenario HKS4).

A wake-up message has the node ask, the answer brings orders (node.wan.administration), each signed for one gateway.
What is not the administrator's, not fresh, from before the start, or was taken already, opens nothing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx
import trio

from node.profiles.gateway_profiles import GatewayProfiles
from node.wan.bounded_http import ask
from protocol import cms
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.profiles.tunnel_order import ORDER_SIZE_MAX, TunnelOrder

log = logging.getLogger(__name__)
UNDER_WAY_MAX: Final = 64
_LIMITS: Final = cms.Limits(message_size=8 * ORDER_SIZE_MAX, content_size=ORDER_SIZE_MAX)
_REMEMBERED: Final = 10_000
_DONE: Final = 204

Open = Callable[[str, str, int], Awaitable[str]]
"""Opens a tunnel of a gateway by a proxy profile for at most so many seconds; what became of it, in one word."""


class OrderTaker:
    """Carries orders out and tells what became of them; `clock` is real time (Unix, s)."""

    def __init__(self, client: httpx.AsyncClient, open_tunnel: Open, clock: Callable[[], float]) -> None:
        self._client = client
        self._open = open_tunnel
        self._clock = clock
        self._started_ms = self._now_ms()
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._places = trio.CapacityLimiter(UNDER_WAY_MAX)
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def take(self, profiles: GatewayProfiles, message: bytes, chain: Sequence[bytes]) -> None:
        """Carry an order out, in a task of its own; whatever it is, it raises nothing."""
        try:
            order = self._check(profiles, message, chain)
        except RemoteProtocolError as error:
            if self._lines.is_due(error.reason):
                log.warning("gateway %s refuses an order for a tunnel: %s", profiles.identity, error)
            return
        if order is not None and self._nursery is not None:
            self._remember(order)
            self._nursery.start_soon(self._carry_out, profiles, order)

    def _check(self, profiles: GatewayProfiles, message: bytes, chain: Sequence[bytes]) -> TunnelOrder | None:
        """The order; None where it was taken already."""
        order = TunnelOrder.from_bytes(profiles.administrators_word(message, chain, _LIMITS))
        if order.gateway != profiles.identity:
            raise RemoteProtocolError("bad_order", "it is for another gateway")
        if order.id in self._taken:
            return None
        if not order.is_good_at(self._now_ms()) or order.issued_ms < self._started_ms:
            raise RemoteProtocolError("old_order", "it is too old, or from before the start")
        return order

    def _remember(self, order: TunnelOrder) -> None:
        self._taken[order.id] = None
        if len(self._taken) > _REMEMBERED:
            self._taken.popitem(last=False)

    async def _carry_out(self, profiles: GatewayProfiles, order: TunnelOrder) -> None:
        async with self._places:
            outcome = await self._open(order.gateway, order.proxy, order.duration_s)
        path = f"/api/v1/tunnel-orders/{order.gateway}/{order.id}"
        headers = {"X-Gateway-Proof": profiles.query_proof()}
        try:
            response = await ask(self._client, "POST", path, json={"outcome": outcome}, headers=headers)
            if response.status_code != _DONE:
                raise RemoteProtocolError("refused", f"status {response.status_code}")
        except (httpx.HTTPError, OSError, RemoteProtocolError) as error:
            if self._lines.is_due("outcome"):  # the tunnel says it itself, or the order's end
                log.warning("what became of an order for a tunnel was not told: %s", str(error) or type(error).__name__)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
