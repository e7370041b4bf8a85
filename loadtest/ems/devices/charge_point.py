"""
A charge point that speaks OCPP 1.6-J (the package `ocpp`), and keeps to the charging profiles of its central system.

    python -m loadtest.ems.devices.charge_point ws://HOST:PORT/ID [socks5h://HOST:PORT]

Through a SOCKS proxy where one is given: that of its communication adapter.  A connection that breaks is made anew.
Tells when it is connected, and each limit at the moment from which it holds.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final

import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, ChargingProfileStatus, RegistrationStatus
from websockets.asyncio.client import connect

from loadtest.ems.devices.told import standard_input, tell

_AGAIN_S: Final = 1.0
_OPEN_S: Final = 45.0
_PING_S: Final = 5.0


class Charger(ChargePoint):  # type: ignore[misc]  # ocpp has no types
    """It takes each profile's first limit, in W."""

    @on(Action.set_charging_profile)  # type: ignore[untyped-decorator]
    def limit(self, cs_charging_profiles: dict[str, Any], **_: Any) -> Any:
        """Keep to a charging profile from now on."""
        schedule = cs_charging_profiles["charging_schedule"]
        if schedule["charging_rate_unit"] != "W":
            return call_result.SetChargingProfile(ChargingProfileStatus.rejected)
        tell("applied", limit_w=int(schedule["charging_schedule_period"][0]["limit"]))
        return call_result.SetChargingProfile(ChargingProfileStatus.accepted)


async def _session(url: str, proxy: str | None) -> None:
    opened = connect(
        url, subprotocols=[websockets.Subprotocol("ocpp1.6")], proxy=proxy, open_timeout=_OPEN_S, ping_interval=_PING_S,
        ping_timeout=_PING_S,
    )  # fmt: skip
    async with opened as connection:
        charger = Charger(url.rpartition("/")[2], connection)
        listening = asyncio.create_task(charger.start())
        try:
            answer = await charger.call(call.BootNotification("Stromkreis", "Scenario"))
            if answer is not None and answer.status == RegistrationStatus.accepted:
                tell("connected")
            await listening
        finally:
            listening.cancel()


async def _stay_connected(url: str, proxy: str | None) -> None:
    while True:
        try:
            await _session(url, proxy)
        except (OSError, websockets.WebSocketException, TimeoutError) as error:
            logging.warning("%s: %s", type(error).__name__, error)
        except Exception as error:  # noqa: BLE001 - python-socks' own kinds of errors
            logging.warning("%s: %s", type(error).__name__, error)
        tell("disconnected")
        await asyncio.sleep(_AGAIN_S)


async def main() -> None:
    """Be connected until standard input ends."""
    url, proxy = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else None)
    connecting = asyncio.create_task(_stay_connected(url, proxy))
    await (await standard_input()).read()
    connecting.cancel()


if __name__ == "__main__":
    asyncio.run(main())
