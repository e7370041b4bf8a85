"""
`stromkreis pair`: the first pairing of a meter of the wired LMN with its gateway, or its undoing.

The keys are on the disk, for their owner alone, before the meter hears of them: after a crash between the two the
file is there and `--reset` makes the meter ready for another try.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import tomli_w
import trio
import typer

from node.lmn.counters import CounterStore
from node.lmn.links import open_link, with_defaults
from node.lmn.lks1.initial_pairing import new_pairing, pair_meter, reset_meter
from node.lmn.lks1.session import Lks1Bus
from node.lmn.lks1.sym import Credentials
from node.lmn.pairing import Pairing
from protocol.errors import LocalProtocolError, RemoteProtocolError, StromkreisError
from stromkreis.decode import named_key
from stromkreis.durable_counters import with_durable_counters

_KEY_SIZE = 16


def pair(
    link: Annotated[str, typer.Argument(metavar="LINK", help="serial:///dev/ttyUSB0 or tcp://host:port of the bus.")],
    meter: Annotated[str, typer.Option("--meter", help="The meter's identification, 14 characters (DIN 43849).")],
    key: Annotated[str, typer.Option("--key", metavar="HEX|@FILE", help="The meter's main key MK0, 16 octets.")],
    gateway: Annotated[str, typer.Option("--gateway", help="The gateway's identification, 14 characters.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the keys go, for the node's configuration; must not exist.")
    ] = None,
    life_days: Annotated[int, typer.Option("--life-days", min=1, help="How long the certificates hold.")] = 2_557,
    reset: Annotated[bool, typer.Option("--reset", help="Undo the meter's pairing instead (crypto reset).")] = False,
) -> None:
    """
    Pair a meter of the wired LMN with its gateway: keys and certificates for both.

    The messages are our own definition (the standard's are not public): simulated meters take them, certified ones
    do not.

    Example: stromkreis pair serial:///dev/ttyUSB0 --meter 1STK0000000001 --gateway ESTK0000000001 --key @mk0.hex
    --out pairing.toml
    """
    main_key = _main_key(key)
    try:
        line = with_defaults(link, "lks1")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="LINK") from None
    if reset:
        try:
            trio.run(with_durable_counters, partial(_reset, line, meter, main_key))
        except RemoteProtocolError as error:
            raise StromkreisError(str(error)) from None
        typer.echo(f"{meter} is paired with nobody now", err=True)
        return
    if out is None or not gateway:
        raise typer.BadParameter("a pairing needs --gateway and --out", param_hint="--out")
    try:
        pairing, credentials = new_pairing(gateway, meter, datetime.now(UTC), timedelta(days=life_days))
    except LocalProtocolError as error:
        raise typer.BadParameter(str(error), param_hint="--meter, --gateway") from None
    _write(out, meter, pairing)
    try:
        trio.run(with_durable_counters, partial(_pair, line, meter, main_key, credentials))
    except RemoteProtocolError as error:
        if error.reason == "sym_refused":  # it has taken nothing: these keys are nobody's
            out.unlink()
            raise StromkreisError(f"{meter} refuses: it is paired already; --reset undoes that") from None
        raise StromkreisError(f"{error}; if the meter took the keys in {out}, they are good: else --reset it") from None
    typer.echo(f"{meter} is paired with {gateway}; its keys are in {out}", err=True)


async def _pair(link: str, meter: str, main_key: bytes, credentials: Credentials, counters: CounterStore) -> None:
    async with await open_link(link) as stream:
        await pair_meter(Lks1Bus(stream), meter, main_key, credentials, counters)


async def _reset(link: str, meter: str, main_key: bytes, counters: CounterStore) -> None:
    async with await open_link(link) as stream:
        await reset_meter(Lks1Bus(stream), meter, main_key, counters)


def _main_key(text: str) -> bytes:
    try:
        main_key = bytes.fromhex(named_key(text)[1])
    except ValueError:
        main_key = b""
    if len(main_key) != _KEY_SIZE:  # the text is a key, or a slip of one: it is not repeated
        raise typer.BadParameter(f"a main key has {_KEY_SIZE} octets in hexadecimal", param_hint="--key")
    return main_key


def _write(path: Path, meter: str, pairing: Pairing) -> None:
    """The table that belongs under a gateway's `keys`, durable, and readable for its owner only."""
    keys = {
        "certificate": pairing.own.certificate.hex(),
        "private_key": pairing.own.private_key.hex(),
        "meter_certificate": pairing.meter.hex(),
    }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StromkreisError(f"{path}: cannot be written ({error.strerror})") from None
    with os.fdopen(descriptor, "wb") as file:
        tomli_w.dump({"node": {"gateways": [{"keys": {meter: keys}}]}}, file)
        file.flush()
        os.fsync(file.fileno())
