"""
`stromkreis sniff`: what a live bus says, as a table that renews itself, or as JSON lines where there is no terminal.

It listens, or asks with `--ask`, or with `--search` looks for what there is: meters on a bus, objects in a meter.  The
codecs pull their bytes from an iterator, the link is a trio stream: so the codec runs in a thread whose iterator asks
trio for the next bytes, and Ctrl-C cancels the asking.  Asking goes through the drivers that a gateway has, so what
works here works there.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, TypeVar

import outcome
import trio
import typer
from pydantic import SecretStr
from rich.console import Group, RenderableType
from rich.live import Live

from node.lmn.iec62056_21.driver import SpeedLink
from node.lmn.links import open_link, parse_link
from node.lmn.mbus.driver import Bus, Timing
from node.lmn.profiles import ANY_METER, MeterProfile, profile_of_url
from node.lmn.registry import DRIVERS
from node.lmn.session import LmnStores, OpenPoll, PollSession
from node.lmn.timestamps import localized
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.metering.reading import Reading
from stromkreis import listening
from stromkreis.decode import (
    DecodeStream,
    Keys,
    MeterProtocol,
    Options,
    decoder,
    error_line,
    named_key,
    options_of,
    write_line,
)
from stromkreis.diagnose import findings, watched
from stromkreis.durable_counters import with_durable_counters
from stromkreis.hints import hint
from stromkreis.live_source import LiveByteSource
from stromkreis.reading_table import ReadingTable

_PURPOSES = (
    "encryption", "authentication", "password", "system_title", "certificate", "private_key", "meter_certificate",
)  # fmt: skip
_BAUDRATES = (2400, 9600, 300)  # of M-Bus meters, the usual first (EN 13757-2)
Item = Reading | RemoteProtocolError
T = TypeVar("T")


def sniff(
    link: Annotated[
        str,
        typer.Argument(
            metavar="LINK",
            help="tcp://host:port, serial:///dev/ttyUSB0?baud=9600&frame=8N1, radio:// with either, rtl://rtl_433; or "
            "a meter's whole URL as in a node's configuration, PROTOCOL+LINK with address= and id= in its query.",
        ),
    ],
    protocol: Annotated[
        MeterProtocol | None, typer.Option("--protocol", "-p", help="What the meters speak, if LINK does not say.")
    ] = None,
    key: Keys = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask the meter (sml, dlms, mbus, iec62056-21, modbus).")] = False,
    every_s: Annotated[float, typer.Option(min=0.1, help="Seconds between two questions.")] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Ask once and leave.")] = False,
    search: Annotated[
        bool, typer.Option("--search", help="What is there: meters (mbus, lks1), or a meter's objects (sml, dlms).")
    ] = False,
    diagnosed: Annotated[
        bool,
        typer.Option("--diagnose", help="Ask once and say what it met: late answers, noise, a lost slash."),
    ] = False,
    heard: Annotated[
        bool,
        typer.Option(
            "--heard", help="Who is heard on the air, how often and how strongly, neighbours as well (wmbus)."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines even on a terminal.")] = False,
) -> None:
    """
    What a live bus says: a table of the latest readings, or JSON lines.

    It only listens: a meter that must be asked stays silent until --ask (then --key takes PURPOSE=HEX as well, for
    example authentication=...).  Exit status 0 when at least one reading or meter came out, else 1.

    Example: stromkreis sniff --ask --once "mbus+serial:///dev/ttyUSB0?address=1"
    """
    profile = _profile(link, protocol, (key or []) if ask or search or diagnosed else [])
    if search:
        given = "baud=" in link
        _run(lambda: _searched(profile, [parse_link(profile.link).baudrate] if given else _BAUDRATES))
        return
    if diagnosed:
        _run(partial(_with_stores, profile, partial(_diagnose, profile, _poll_of(profile))))
        return
    if once and not ask:
        raise typer.BadParameter("only what is asked can be asked once", param_hint="--once")
    if heard and ask:
        raise typer.BadParameter("either listen, or ask", param_hint="--heard")
    as_lines = as_json or once or not sys.stdout.isatty()
    if ask:
        show = partial(_print_lines if as_lines else _show_table, profile)
        _run(
            partial(_with_stores, profile, partial(_ask_and_show, profile, _poll_of(profile), show, every_s, once=once))
        )
        return
    if profile.protocol not in set(MeterProtocol):
        raise typer.BadParameter(f"{profile.protocol} cannot be listened to here", param_hint="LINK")
    radio = listening.Radio(profile) if profile.protocol == MeterProtocol.WMBUS else None
    if heard and radio is None:
        raise typer.BadParameter("only meters on the air are heard (wmbus)", param_hint="--heard")
    decode_stream = decoder(MeterProtocol(profile.protocol), key, _options(profile))
    listened: Callable[[Iterator[Item]], int]
    if radio is None:
        listened = partial(_print_lines if as_lines else _show_table, profile)
    elif heard:
        listened = radio.print_heard if as_lines else radio.show_heard
    else:
        listened = partial(_print_lines, profile) if as_lines else partial(_show_table, profile, below=radio.table)
    _run(partial(_listen, profile, decode_stream, radio, listened))


async def _listen(
    profile: MeterProfile,
    decode_stream: DecodeStream,
    radio: listening.Radio | None,
    show: Callable[[Iterator[Item]], int],
) -> int:
    async with await _open(profile.link) as stream:
        if radio is not None:
            await radio.set_up(stream)
        source = LiveByteSource(stream, profile.protocol, profile.link)
        items = decode_stream(source.chunks()) if radio is None else radio.decode(decode_stream, source.chunks())
        return await trio.to_thread.run_sync(show, _localized(source.noted(items), profile))


def _options(profile: MeterProfile) -> Options:
    """What of a meter's profile the codec of its protocol takes."""
    is_text = profile.protocol in (MeterProtocol.IEC62056_21, MeterProtocol.P1)
    return options_of([*profile.layouts], profile.medium if is_text else None)


def _localized(items: Iterator[Item], profile: MeterProfile) -> Iterator[Item]:
    zone = profile.zone()
    return items if zone is None else (localized(each, zone) if isinstance(each, Reading) else each for each in items)


def _run(run: Callable[[], Awaitable[int]]) -> None:
    """
    Exit with 1 where nothing came out; raises KeyboardInterrupt where Ctrl-C ended it.

    The signal is received and not left to raise wherever the program is: between the making of a coroutine and its
    start that would leave a warning on the screen.
    """

    async def until_interrupted() -> int:
        interrupted = False

        async def watch() -> None:
            nonlocal interrupted
            await anext(signals)
            interrupted = True
            nursery.cancel_scope.cancel()

        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                # What it raises is captured in there: out of here the nursery would wrap it in a group.
                found = await outcome.acapture(run)
                nursery.cancel_scope.cancel()
        if interrupted:
            raise KeyboardInterrupt
        return found.unwrap()

    if not trio.run(until_interrupted):
        raise typer.Exit(1)


def _profile(link: str, protocol: MeterProtocol | None, keys: list[str]) -> MeterProfile:
    scheme = link.partition("://")[0]
    named = scheme.partition("+")[0] if "+" in scheme else None
    if named is None and protocol is None:
        raise typer.BadParameter("what do the meters speak? give --protocol, or PROTOCOL+LINK", param_hint="LINK")
    if named is not None and (named not in DRIVERS or (protocol is not None and named != protocol.value)):
        raise typer.BadParameter(f"found {named}+; expected {protocol or ', '.join(MeterProtocol)}", param_hint="LINK")
    url = link if named is not None or protocol is None else f"{protocol.value}+{link}"
    secrets = {name: SecretStr(key) for name, key in map(_purpose, keys)}
    try:
        first = profile_of_url(url, "meter", {})
        return profile_of_url(
            url, "meter" if first.meter_id == ANY_METER else first.meter_id, {first.meter_id: secrets}
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--key" if "hexadecimal" in str(error) else "LINK") from None


def _purpose(text: str) -> tuple[str, str]:
    purpose, key = named_key(text)
    if purpose and purpose not in _PURPOSES:
        raise typer.BadParameter(f"a key that asks is for {', '.join(_PURPOSES)}", param_hint="--key")
    return purpose or "encryption", key


async def _open(link: str) -> trio.abc.Stream:
    try:
        return await open_link(link)
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        why = getattr(error, "strerror", None) or str(error) or "nobody answers"
        raise StromkreisError(f"{link.partition('?')[0]}: the link cannot be opened ({why})") from None


async def _searched(profile: MeterProfile, baudrates: Sequence[int]) -> int:
    try:
        return await _with_stores(profile, partial(_search, profile, baudrates))
    except RemoteProtocolError as error:
        _tell(error, profile, set())
        return 0


async def _search(profile: MeterProfile, baudrates: Sequence[int], stores: LmnStores) -> int:
    """
    One line for each meter of a bus, or for each object of a meter.

    On an M-Bus at the first speed at which any answers; on a converter the speed is the converter's.
    """
    find = DRIVERS[profile.protocol].find
    if find is not None:
        async with await _open(profile.link) as stream:
            items = await find(stream, profile, stores, time.time)
        for item in items:
            write_line(f"{item.name}  {item.description}")
        return len(items)
    if profile.protocol != MeterProtocol.MBUS:
        told = "only the meters of an M-Bus or the wired LMN, or the objects of an SML or DLMS meter can be looked for"
        raise typer.BadParameter(told, param_hint="--search")
    async with await _open(profile.link) as stream:
        for baudrate in baudrates:
            if isinstance(stream, SpeedLink):
                await stream.set_baudrate(baudrate)
            found = await Bus(stream, Timing(baudrate)).search()
            for mask in found.collisions:
                typer.echo(f"several meters answer to {mask.number} and cannot be distinguished", err=True)
            for device in found.meters:
                address = device.number + device.to_transport()[4:].hex().upper()
                write_line(f"{device}  address={address}  baud={baudrate}")
            if found.meters or not isinstance(stream, SpeedLink):
                break
    if not found.meters:
        tried = f" at {', '.join(map(str, baudrates))} baud" if isinstance(stream, SpeedLink) else ""
        typer.echo(f"no meter answers{tried}", err=True)
    return len(found.meters)


def _poll_of(profile: MeterProfile) -> OpenPoll:
    poll = DRIVERS[profile.protocol].poll
    if poll is None:
        raise typer.BadParameter(
            f"{profile.protocol} meters cannot be asked, they speak by themselves", param_hint="--ask"
        )
    if profile.push:
        raise typer.BadParameter(
            "push=1 says that the meter speaks by itself: leave one of the two out", param_hint="--ask"
        )
    return poll


async def _ask_and_show(
    profile: MeterProfile, poll: OpenPoll, show: Callable[[Iterator[Item]], int], every_s: float, stores: LmnStores,
    *, once: bool,
) -> int:  # fmt: skip
    asked = _asked(poll([profile], stores), profile, every_s, once=once)
    return await trio.to_thread.run_sync(show, asked)


async def _diagnose(profile: MeterProfile, poll: OpenPoll, stores: LmnStores) -> int:
    """One question, its readings, and what it met on standard error."""
    stream = watched(await _open(profile.link))
    async with stream:
        items = await _question(poll([profile], stores), stream, profile)
        await stream.wait_for_late_answers()
    count = _print_lines(profile, iter(items))
    for finding in findings(stream.turns, profile):
        typer.echo(finding, err=True)
    return count


def _asked(session: PollSession, profile: MeterProfile, every_s: float, *, once: bool) -> Iterator[Item]:
    while True:
        began_s = time.monotonic()
        yield from trio.from_thread.run(_ask, session, profile)
        if once:
            return
        trio.from_thread.run(trio.sleep, max(0.0, began_s + every_s - time.monotonic()))


async def _with_stores(profile: MeterProfile, work: Callable[[LmnStores], Awaitable[T]]) -> T:
    """Ask, with invocation counters that outlive this command where something is ciphered."""
    if profile.key("system_title") is None:
        return await work(LmnStores())
    return await with_durable_counters(lambda counters: work(LmnStores(counters)))


async def _ask(session: PollSession, profile: MeterProfile) -> list[Item]:
    async with await _open(profile.link) as stream:
        return await _question(session, stream, profile)


async def _question(session: PollSession, stream: trio.abc.Stream, profile: MeterProfile) -> list[Item]:
    try:
        return list(await session.ask(stream, profile, time.time))
    except RemoteProtocolError as error:
        return [error]
    except (trio.BrokenResourceError, trio.TooSlowError) as error:
        return [RemoteProtocolError("link_broken", type(error).__name__)]


def _tell(error: RemoteProtocolError, profile: MeterProfile, told: set[str]) -> None:
    """An error, and what to try once for each reason."""
    typer.echo(error_line(error), err=True)
    if error.reason not in told and (advice := hint(error.reason, profile)):
        typer.echo(f"  {advice}", err=True)
    told.add(error.reason)


def _print_lines(profile: MeterProfile, items: Iterator[Item]) -> int:
    count, told = 0, set[str]()
    for item in items:
        if isinstance(item, RemoteProtocolError):
            _tell(item, profile, told)
        else:
            write_line(json.dumps(item.to_json(), ensure_ascii=False))
            count += 1
    return count


def _show_table(
    profile: MeterProfile, items: Iterator[Item], *, below: Callable[[], RenderableType] | None = None
) -> int:  # fmt: skip
    table = ReadingTable(lambda reason: hint(reason, profile))

    def shown() -> RenderableType:
        return table.table() if below is None else Group(table.table(), below())

    with Live(shown(), refresh_per_second=4) as live:
        for item in items:
            table.add(item)
            live.update(shown())
    return table.reading_count
