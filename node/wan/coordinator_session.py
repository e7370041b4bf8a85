"""
A gateway's session with the coordinator: one link, one outbox, and what is said again until it is heard.

It knows the wire and nothing of what the messages are about; that is its handler's.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from node.metrics import NodeMetrics
from protocol import wire
from protocol.errors import RemoteProtocolError
from protocol.link import Connection, Inbox, Keypair, LinkContext
from protocol.log_limit import PEER_LINE_S, LogLimiter

log = logging.getLogger(__name__)
_OUTBOX = 64  # messages that wait for the link; more are dropped, deadlines repeat what matters
_HELLO_S = 10.0
_ASK_S = 5.0


class Handler(Protocol):
    """Whom the coordinator's messages are for."""

    @property
    def newest_epoch(self) -> int:
        """The highest epoch whose layout was verified, -1 before the first."""

    @property
    def bound_epoch(self) -> int:
        """The highest epoch that there ever was a layout of, -1 before the first."""

    def question(self) -> wire.Message | None:
        """What is asked again and again until it is answered."""

    def refused(self, epoch: int) -> None:
        """The coordinator has refused a message about an epoch."""

    async def receive(self, message: wire.Message) -> None:
        """A message has come.  Raises RemoteProtocolError where it is refused."""


class CoordinatorSession:
    """One gateway's; `run` serves until cancelled."""

    def __init__(
        self, link: LinkContext, endpoint: str, coordinator_key: bytes, curve: Keypair, identity: str,
        metrics: NodeMetrics,
    ) -> None:  # fmt: skip
        self._link = link
        self._endpoint = endpoint
        self._coordinator_key = coordinator_key
        self._curve = curve
        self._identity = identity
        self._metrics = metrics
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)
        self._inbox: Inbox[wire.Message, bytes] = link.inbox(_OUTBOX)  # posted is what goes to the coordinator
        self._connection: Connection | None = None

    @property
    def is_linked(self) -> bool:
        """Whether the coordinator is there."""
        return self._connection is not None and self._connection.is_connected

    def post(self, message: wire.Message) -> None:
        """Send a message when the link allows; it is dropped where too many wait."""
        if not self._inbox.post(message):
            self._metrics.dropped("outbox")

    def ask(self, handler: Handler) -> None:
        """Ask the handler's question, where it has one."""
        if (question := handler.question()) is not None:
            self.post(question)

    def greet(self, handler: Handler) -> None:
        """Say where the gateway stands: the coordinator answers with what it needs to take part."""
        self.post(wire.Hello(wire.VERSION, handler.newest_epoch, handler.bound_epoch))

    async def run(self, handler: Handler) -> None:
        """Hear the coordinator, say what is to be said, and repeat what it may have missed or forgotten."""
        async with self._link.connect(self._endpoint, self._coordinator_key, self._curve) as connection:
            await self._serve(connection, handler)

    async def _serve(self, connection: Connection, handler: Handler) -> None:
        self._inbox.follow(connection)
        self._connection = connection
        greet_s = ask_s = trio.current_time()
        connects = 1  # the first is no reconnection
        while True:
            now_s = trio.current_time()
            if now_s >= greet_s:
                greet_s = now_s + _HELLO_S
                # Again and again, since the coordinator may have been restarted.
                self.greet(handler)
            if now_s >= ask_s:
                ask_s = now_s + _ASK_S
                self.ask(handler)
            match await self._inbox.receive(min(greet_s, ask_s) - now_s):
                case None:
                    pass
                case bytes() as data:
                    await self._hear(data, handler)
                case message:
                    await self._say(connection, message)
            if connection.counters.connects > connects:
                self._metrics.reconnected(connection.counters.connects - connects)
                connects = connection.counters.connects

    async def _say(self, connection: Connection, message: wire.Message) -> None:
        data = wire.encode(message)
        await connection.send(data)
        self._metrics.sent(len(data))

    async def _hear(self, data: bytes, handler: Handler) -> None:
        self._metrics.received(len(data))
        try:
            message = wire.decode(data, wire.FROM_COORDINATOR)
            if isinstance(message, wire.Refused):
                if self._lines.is_due("refused"):
                    log.info(
                        "gateway %s: the coordinator says of epoch %d: %s",
                        self._identity, message.epoch, message.reason,
                    )  # fmt: skip
                handler.refused(message.epoch)
            else:
                await handler.receive(message)
        except RemoteProtocolError as error:
            self._metrics.protocol_error(error.reason)
            if self._lines.is_due(error.reason):
                log.warning("gateway %s refuses the coordinator's message: %s", self._identity, error)
