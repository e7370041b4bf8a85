"""
`stromkreis meters`: a neighbourhood of simulated meters, each on a TCP port of its own, and a book that says where.

Simulated time runs from an origin that the configuration gives, `period_s` of wall clock a quarter hour, so several
processes with one configuration see the same registers.  A port per meter is what a gateway in the field has too: one
cable.  The book is written when all of them listen, under another name first: who finds it can use all of it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import trio

from loadtest.config import MetersConfig
from loadtest.households import Household, households
from loadtest.meters.sml import Register, SmlMeter
from loadtest.meters.sml_server import serve
from loadtest.replays import Recording, recordings
from protocol.errors import StromkreisError
from protocol.metering.obis import Obis
from protocol.metering.units import WATT, WATT_HOUR

log = logging.getLogger(__name__)

QUARTER_HOUR_S = 900
_IMPORT, _EXPORT, _POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
_PUSH_INTERVAL_S_MAX = 1.0  # what most meters' optical ports do; faster where a quarter hour is only seconds long
_PUSH_DELAY_S = 0.003  # after a quarter hour's begin: surely in it by every clock of one machine


@dataclass(frozen=True, slots=True)
class BookEntry:
    """One meter of the book; `annual_wh` is None for a recording."""

    id: str
    url: str
    profile: str
    annual_wh: int | None


@dataclass(frozen=True, slots=True)
class SimulatedClock:
    """Wall clock to quarter hours: quarter hour q begins `origin_unix_s` + q·`period_s`."""

    origin_unix_s: float
    period_s: float

    def quarter_hour(self, unix_s: float) -> int:
        """The index of the quarter hour at a moment; negative before the origin."""
        return int((unix_s - self.origin_unix_s) // self.period_s)

    def now(self) -> int:
        """The index of the present quarter hour."""
        return self.quarter_hour(time.time())

    def until_push_s(self, unix_s: float) -> float:
        """Seconds to the next telegram of a meter that speaks unasked; one a second, and four a quarter hour."""
        interval_s = self.period_s / max(4, math.ceil(self.period_s / _PUSH_INTERVAL_S_MAX))
        left_s = interval_s - (unix_s - self.origin_unix_s - _PUSH_DELAY_S) % interval_s
        return left_s if left_s > _PUSH_DELAY_S / 2 else left_s + interval_s  # woken a little early, it has just spoken


SimulatedMeters = list[Household | Recording]


def simulated_meters(config: MetersConfig) -> SimulatedMeters:
    """The recordings, then the households: in the order in which the book has them.  Raises StromkreisError."""
    replayed = recordings(config.replay, count_max=config.replay_count_max) if config.replay is not None else []
    return [*replayed, *households(config)]


async def run(config: MetersConfig, *, ready: Callable[[list[BookEntry]], None] | None = None) -> None:
    """
    Serve until cancelled; `ready` is called with the book once all meters listen.

    Raises StromkreisError where load profiles, recordings or a free port are missing.
    """
    if config.protocol != "sml":
        raise StromkreisError(f"simulated meters of protocol {config.protocol} are not served yet; expected sml")
    origin_unix_s = config.origin_unix_s if config.origin_unix_s is not None else time.time()
    clock = SimulatedClock(origin_unix_s, config.period_s)
    meters = simulated_meters(config)
    book = []
    async with trio.open_nursery() as nursery:
        for index, meter in enumerate(meters):
            port = config.first_port + index if config.first_port else 0
            book.append(await _start(nursery, config, clock, meter, port))
        _write_book(config, clock, book)
        log.info("meters listen", extra={"meters": len(book), "first": book[0].url})
        if ready is not None:
            ready(book)
        await trio.sleep_forever()


async def _start(
    nursery: trio.Nursery, config: MetersConfig, clock: SimulatedClock, meter: Household | Recording, port: int
) -> BookEntry:
    serving: Callable[..., Awaitable[Any]]
    if isinstance(meter, Recording):
        serving = partial(push_recording, meter, clock, host=config.host, port=port)
    else:
        sml_meter = SmlMeter(meter.meter_id, partial(_registers, meter, clock))
        serving = partial(serve, [sml_meter], partial(datetime.now, UTC), host=config.host, port=port)
    try:
        port = await nursery.start(serving)
    except OSError as error:
        raise StromkreisError(f"port {port} of {config.host} cannot be listened on ({error.strerror})") from None
    url = f"sml+tcp://{config.host}:{port}"
    if isinstance(meter, Recording):
        return BookEntry(meter.meter_id, f"{url}?push=1", "recording", None)
    return BookEntry(meter.meter_id, url, meter.profile, meter.annual_wh)


def _registers(meter: Household, clock: SimulatedClock, now: datetime) -> list[Register]:
    shown = meter.registers(clock.quarter_hour(now.timestamp()))
    return [
        (_IMPORT, shown.import_tenth_wh, -1, WATT_HOUR),
        (_EXPORT, shown.export_tenth_wh, -1, WATT_HOUR),
        (_POWER, shown.power_w, 0, WATT),
    ]


async def push_recording(
    recording: Recording,
    clock: SimulatedClock,
    *,
    host: str,
    port: int,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve a recorded meter until cancelled: it hears nothing and pushes its present telegram to every connection.

    It pushes in step with the quarter hours, first just after each begins and last well before it ends: a telegram
    that crossed the border on its way would be counted by the gateway into the quarter hour in which it came, and no
    ground truth could say which.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)

    async def converse(stream: trio.SocketStream) -> None:
        try:
            while True:
                await trio.sleep(clock.until_push_s(time.time()))
                await stream.send_all(recording.frame(clock.now()))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, converse, listeners))
        task_status.started(listeners[0].socket.getsockname()[1])


def _write_book(config: MetersConfig, clock: SimulatedClock, book: list[BookEntry]) -> None:
    if config.book is None:
        return
    content = {**asdict(clock), "meters": [asdict(entry) for entry in book]}
    unfinished = config.book.with_suffix(".unfinished")
    try:
        config.book.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(config.book)
    except OSError as error:
        raise StromkreisError(f"{config.book}: the meter book cannot be written ({error.strerror})") from None


def read_book(path: Path) -> list[BookEntry]:
    """The meters of a book, in order.  Raises StromkreisError where there is none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["meters"]
        return [BookEntry(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StromkreisError(f"{path}: no meter book ({type(error).__name__})") from None
