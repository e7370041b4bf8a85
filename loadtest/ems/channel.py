"""
The connection of a home and a remote energy management system (EMS), through the tunnel: lines of JSON.

Upwards values and answers, downwards heartbeats and limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from loadtest.ems.actuators import AnsweredActuator
from loadtest.ems.limits import PowerLimit
from loadtest.ems.participant import TlsStream
from loadtest.ems.tunnel import Lines


class HomeEnd:
    """
    The home's end; `learn` is told values where a collector sends them up.

    `limit` is who keeps to what comes down, None where nobody does; `woken` is called when that has changed.
    """

    def __init__(self, limit: PowerLimit | None, woken: Callable[[], None]) -> None:
        self._limit = limit
        self._woken = woken
        self._newest: tuple[int, int | None] | None = None
        self._changed = trio.Event()

    def learn(self, energy_tenth_wh: int, power_w: int | None) -> None:
        """A value to send up; one that could not leave in time gives way to a newer one."""
        self._newest = energy_tenth_wh, power_w
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, until it ends."""
        lines = Lines(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_up, lines)
            async for message in lines:
                await self._take(message, lines)
            nursery.cancel_scope.cancel()

    async def _send_up(self, lines: Lines) -> None:
        while True:
            await self._changed.wait()
            if self._newest is not None:
                await lines.send(energy_tenth_wh=self._newest[0], power_w=self._newest[1])

    async def _take(self, message: dict[str, object], lines: Lines) -> None:
        limit, number, limit_w = self._limit, message.get("id"), message.get("limit_w")
        if limit is None:
            return
        if message.get("event") == "heartbeat":
            limit.heartbeat(time.time())
        elif isinstance(limit_w, int):
            is_accepted = limit.receive(limit_w, time.time())
            await lines.send(event="answered", id=number, accepted=is_accepted)
        self._woken()


class RemoteEnd:
    """The participant's end; `learn` gets values, and `actuator` limits the home."""

    def __init__(self, learn: Callable[[int, int | None], None]) -> None:
        self._learn = learn
        self._lines: Lines | None = None
        self._connected = trio.Event()
        self.actuator = AnsweredActuator("local EMS", self._send)

    async def serve(self, stream: TlsStream) -> None:
        """One connection of the home, until it ends; the newest one is used."""
        lines = self._lines = Lines(stream)
        self._connected.set()
        try:
            async for message in lines:
                if "energy_tenth_wh" in message:
                    self._learn(message["energy_tenth_wh"], message["power_w"])
                else:
                    self.actuator.take(message)
        finally:
            if self._lines is lines:
                self._lines, self._connected = None, trio.Event()

    async def close(self) -> None:
        """Break the connection, as soon as there is one."""
        await self._connected.wait()
        if self._lines is not None:
            await self._lines.close()

    async def _send(self, **message: object) -> None:
        await self._connected.wait()
        if self._lines is not None:
            await self._lines.send(event="heartbeat")  # a limit without one is not accepted
            await self._lines.send(**message)
