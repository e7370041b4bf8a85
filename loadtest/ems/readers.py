"""Where an energy management system gets its values: the consumer interface, the participant's inbox, or the meter."""

from __future__ import annotations

import csv
import io
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import httpx
import trio

from loadtest.ems.installation import CONSUMER, PASSWORD
from loadtest.ems.meter import IMPORT, POWER
from node.lmn.sml.readings import frame_readings
from node.lmn.sml.transport import Frame, TransportReader

Learn = Callable[[int, int | None], None]
"""Told a value: the register of active energy drawn in tenths of a Wh, and the power (W) where it is known."""

POLL_S: Final = 1.0
_TIMEOUT_S: Final = 20.0
_FRAME_SIZE_MAX: Final = 16_384
_AGAIN_S: Final = 1.0
Failed = Callable[[str], None]


async def poll_consumer_interface(base: str, context: ssl.SSLContext, learn: Learn, failed: Failed) -> None:
    """Read the newest values once a second over the HAN API, logged in as the consumer, until cancelled."""
    auth = httpx.DigestAuth(CONSUMER, PASSWORD)
    url, meter = f"{base}/smgw/con/v1/rts", ""
    async with httpx.AsyncClient(verify=context, auth=auth, timeout=_TIMEOUT_S) as client:
        due = trio.current_time()
        while True:
            try:
                if not meter:
                    listed = (await client.get(f"{url}/Meter/")).raise_for_status().json()
                    meter = listed[0].rpartition("/")[2] if listed else ""
                if meter:
                    answer = (await client.get(f"{url}/Reading/{meter}")).raise_for_status().json()
                    _learn_values(answer["values"], learn)
            except httpx.HTTPError as error:
                failed(f"consumer interface: {type(error).__name__}")
            due = max(due + POLL_S, trio.current_time())
            await trio.sleep_until(due)


def _learn_values(values: list[dict[str, str]], learn: Learn) -> None:
    found = {each["obis"]: Decimal(each["value"]).scaleb(int(each["scaler"])) for each in values}
    if str(IMPORT) in found:
        power = found.get(str(POWER))
        learn(int(found[str(IMPORT)] * 10), None if power is None else int(power))


async def poll_inbox(base: str, root: ssl.SSLContext, token: str, learn: Learn, failed: Failed) -> None:
    """Export once a second what gateways have delivered to the participant, until cancelled."""
    headers, seen = {"Authorization": f"Bearer {token}"}, set[tuple[str, bool]]()
    async with httpx.AsyncClient(verify=root, headers=headers, timeout=_TIMEOUT_S, base_url=base) as client:
        due, since = trio.current_time(), datetime.now(UTC) - timedelta(hours=1)
        while True:
            span = {"from": since.isoformat(), "to": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
            try:
                answer = (await client.get("/api/v1/deliveries/values.csv", params=span)).raise_for_status()
                learn_rows(answer.text, seen, learn)
            except httpx.HTTPError as error:
                failed(f"inbox: {type(error).__name__}")
            due = max(due + POLL_S, trio.current_time())
            await trio.sleep_until(due)


def learn_rows(text: str, seen: set[tuple[str, bool]], learn: Learn) -> None:
    """
    The new rows of an export in the order of time, energy with the power of the same second.

    Both are deliveries of their own: energy is learnt at once, and again when its power has come.
    """
    rows = [each for each in csv.DictReader(io.StringIO(text)) if each["kind"] == "value"]
    powers = {each["time"]: int(Decimal(each["value"])) for each in rows if each["obis"] == str(POWER)}
    for each in sorted(rows, key=lambda row: row["time"]):
        at, power = each["time"], powers.get(each["time"])
        if each["obis"] == str(IMPORT) and not seen & {(at, True), (at, power is not None)}:
            seen.add((at, power is not None))
            learn(int(Decimal(each["value"]) * 10), power)


async def collect(meter_port: int, learn: Learn, failed: Failed) -> None:
    """A collector of the household's own on the meter's interface: take what it pushes, until cancelled."""
    while True:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", meter_port) as stream:
                reader = TransportReader(_FRAME_SIZE_MAX)
                async for data in stream:
                    for item in reader.feed(data):
                        if isinstance(item, Frame):
                            _learn_frame(item.payload, learn)
        except (OSError, trio.BrokenResourceError) as error:
            failed(f"meter: {type(error).__name__}")
        await trio.sleep(_AGAIN_S)


def _learn_frame(payload: bytes, learn: Learn) -> None:
    found = {each.obis: each for each in frame_readings(payload)}
    energy, power = found.get(IMPORT), found.get(POWER)
    if energy is not None and isinstance(energy.value, int):
        is_known = power is not None and isinstance(power.value, int)
        learn(
            int(Decimal(energy.value).scaleb(energy.scaler) * 10),
            int(Decimal(power.value).scaleb(power.scaler)) if is_known else None,  # type: ignore[union-attr,arg-type]
        )
