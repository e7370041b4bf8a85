"""
The OCPP 1.6-J central system of an energy management system (EMS), which says on standard input what it wants.

    python -m loadtest.ems.devices.central_system

Input: {"id": 7, "limit_w": 4200}.  Tells its port, who is connected, and for each command whether the charge point has
accepted it ("answered", with the command's id).
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final

import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, ChargingProfileStatus, RegistrationStatus
from websockets.asyncio.server import ServerConnection, serve

from loadtest.ems.devices.told import standard_input, tell

_ANSWER_S: Final = 10.0
_PING_S: Final = 5.0
_HEARTBEAT_S: Final = 300


class Point(ChargePoint):  # type: ignore[misc]  # ocpp has no types
    """A charge point that has connected."""

    @on(Action.boot_notification)  # type: ignore[untyped-decorator]
    def booted(self, **_: Any) -> Any:
        """It is welcome."""
        now = datetime.now(UTC).isoformat()
        return call_result.BootNotification(now, _HEARTBEAT_S, RegistrationStatus.accepted)


class CentralSystem:
    """Commands go to the charge point that has connected last."""

    def __init__(self) -> None:
        self._point: Point | None = None

    async def connected(self, connection: ServerConnection) -> None:
        """A charge point's connection, until it ends."""
        point = Point((connection.request.path if connection.request else "/").strip("/"), connection, _ANSWER_S)
        self._point = point
        tell("connected")
        try:
            await point.start()
        except websockets.ConnectionClosed:
            pass
        finally:
            if self._point is point:
                self._point = None
            tell("disconnected")

    async def command(self, number: int, limit_w: int) -> None:
        """Limit the charge point, and tell what it says."""
        tell("answered", id=number, accepted=self._point is not None and await self._limit(self._point, limit_w))

    @staticmethod
    async def _limit(point: Point, limit_w: int) -> bool:
        profile = {
            "charging_profile_id": 1, "stack_level": 0, "charging_profile_purpose": "TxDefaultProfile",
            "charging_profile_kind": "Relative",
            "charging_schedule": {
                "charging_rate_unit": "W", "charging_schedule_period": [{"start_period": 0, "limit": limit_w}],
            },
        }  # fmt: skip
        try:
            answer = await point.call(call.SetChargingProfile(connector_id=1, cs_charging_profiles=profile))
        except (TimeoutError, websockets.ConnectionClosed):
            return False
        return answer is not None and answer.status == ChargingProfileStatus.accepted


async def main() -> None:
    """Serve until standard input ends."""
    system = CentralSystem()
    reader = await standard_input()
    server = await serve(
        system.connected, "127.0.0.1", 0, subprotocols=[websockets.Subprotocol("ocpp1.6")], ping_interval=_PING_S,
        ping_timeout=_PING_S,
    )  # fmt: skip
    tell("listening", port=next(iter(server.sockets)).getsockname()[1])
    tasks = set[asyncio.Task[None]]()
    while line := await reader.readline():
        wanted = json.loads(line)
        task = asyncio.create_task(system.command(wanted["id"], wanted["limit_w"]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
