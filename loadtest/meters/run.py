"""
`stromkreis meters`: a neighbourhood of simulated meters, each on a line of its own, and a meter_list that says where.

Simulated time runs from an origin that the configuration gives, `period_s` of wall clock a quarter hour, so several
processes with one configuration see the same registers.  A TCP port or a pseudo-terminal per meter is what a gateway in
the field has too: one cable.  The meter_list is written when all of them listen.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

import trio

from loadtest.config import MeterProtocol, MetersConfig
from loadtest.households import Household, households
from loadtest.meters.clock import SimulatedClock, clock_of
from loadtest.meters.guide import gateways_toml
from loadtest.meters.meter_list import MeterEntry, write_meter_list, write_private
from loadtest.meters.scenario import read_scenario, timelines
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.servers import Home, MeterServer, Serve, push, speaker
from loadtest.replays import Recording, recordings
from node.lmn.links import open_link
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)

_BACKLOG = 4096  # thousands of gateways connect within one second of a load test
_FORGET_S = 0.1  # longer than a pause within a telegram, shorter than that between two


# Open files: listener and a connection; both ends of two pseudo-terminals and the meter's own line.
_FILES_PER_METER = {"tcp": 2, "pty": 6}
_FILES_BESIDE = 64

SimulatedMeters = list[Household | Recording]


def simulated_meters(config: MetersConfig) -> SimulatedMeters:
    """The recordings, then the households: in the order in which the meter_list has them.  Raises StromkreisError."""
    replayed = recordings(config.replay, count_max=config.replay_count_max) if config.replay is not None else []
    return [*replayed, *households(config)]


async def run(config: MetersConfig, *, ready: Callable[[list[MeterEntry]], None] | None = None) -> None:
    """
    Serve until cancelled; `ready` is called with the meter_list once all meters listen.

    Raises StromkreisError where load profiles, recordings, a free port or open files are missing.
    """
    clock = clock_of(config, time.time())
    meter_list = []
    async with trio.open_nursery() as nursery:
        meters = simulated_meters(config)
        homes = _under_scenario(config, meters, clock)
        _make_room(len(meters) * _FILES_PER_METER[config.link] + _FILES_BESIDE)
        for index, meter in enumerate(meters):
            if isinstance(meter, Recording):
                protocol, speaks = "sml", _recorded(meter, clock)
            else:
                protocol, home = next(homes)
                speaks = speaker(protocol, home, clock, seed=config.seed, serial=config.link == "pty")
            url = await _start(nursery, config, speaks, index)
            meter_list.append(_entry(meter, protocol, url, speaks))
        if config.meter_list is not None:
            write_meter_list(config.meter_list, clock, meter_list)
        if config.gateways is not None:
            write_private(config.gateways, gateways_toml(meter_list))
        log.info("meters listen", extra={"meters": len(meter_list), "first": meter_list[0].url})
        if ready is not None:
            ready(meter_list)
        await trio.sleep_forever()


def _under_scenario(
    config: MetersConfig, meters: SimulatedMeters, clock: SimulatedClock
) -> Iterator[tuple[MeterProtocol, Home]]:
    """The households with what they speak, and with what the scenario has happen to them."""
    homes = [each for each in meters if isinstance(each, Household)]
    protocols = [config.protocol_of(index) for index in range(len(homes))]
    if config.scenario is None:
        return iter(zip(protocols, homes, strict=True))
    return iter(zip(protocols, timelines(read_scenario(config.scenario), homes, protocols, clock), strict=True))


def _make_room(file_count: int) -> None:
    """Many systems start a process with 1,024 open files and let it have more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= file_count:
        return
    if hard != resource.RLIM_INFINITY and hard < file_count:
        raise StromkreisError(
            f"these meters need some {file_count} open files and {hard} are allowed: fewer meters, or a higher limit"
            " (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (file_count, hard))


def _recorded(meter: Recording, clock: SimulatedClock) -> MeterServer:
    return MeterServer("sml", partial(push, clock, lambda: meter.frame(clock.now())), query="push=1")


def _entry(meter: Household | Recording, protocol: str, url: str, speaks: MeterServer) -> MeterEntry:
    if isinstance(meter, Recording):
        return MeterEntry(meter.meter_id, protocol, url, "recording", None)
    return MeterEntry(meter.meter_id, protocol, url, meter.profile, meter.annual_wh, speaks.keys)


async def _start(nursery: trio.Nursery, config: MetersConfig, speaks: MeterServer, index: int) -> str:
    scheme = "radio" if speaks.radio else "tcp" if config.link == "tcp" else "serial"
    if config.link == "tcp":
        port = config.first_port + index if config.first_port else 0
        try:
            port = await nursery.start(partial(_serve_tcp, speaks.serve, host=config.host, port=port))
        except OSError as error:
            raise StromkreisError(f"port {port} of {config.host} cannot be listened on ({error.strerror})") from None
        base, settings = f"{scheme}://{config.host}:{port}", ""
    else:
        try:
            path = await nursery.start(partial(_serve_pty, speaks.serve, speaks.serial))
        except OSError as error:
            raise StromkreisError(f"no pseudo-terminal for meter {index} ({error.strerror})") from None
        base, settings = f"{scheme}://{path}", speaks.serial
    query = "&".join(part for part in (settings, speaks.query) if part)
    return f"{speaks.driver}+{base}{'?' if query else ''}{query}"


async def _serve_tcp(
    serve: Serve, *, host: str, port: int, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)

    async def converse(stream: trio.SocketStream) -> None:
        async with stream:
            await _serve(serve, stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, converse, listeners))
        task_status.started(listeners[0].socket.getsockname()[1])


async def _serve_pty(
    serve: Serve, settings: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    async with serial_bus(forget_s=_FORGET_S) as (theirs, ours), await open_link(f"serial://{ours}?{settings}") as line:
        task_status.started(theirs)
        await _serve(serve, line)


async def _serve(serve: Serve, stream: trio.abc.Stream) -> None:
    try:
        await serve(stream)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
