"""`stromkreis cls-adapter`: programs of a controllable system reach market participants through the gateway."""

from __future__ import annotations

import base64
import os
import random
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import trio
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from node.mdns.lookup import Lookup, connect_first
from protocol.errors import StromkreisError
from protocol.mdns.records import CLS_SERVICE, instance_of
from protocol.pki import is_gateway_id
from protocol.pki.han import HanRole, make_self_signed
from stromkreis.logs import LogFormat
from stromkreis.services import LogFormatOption, LogLevel, forbid_core_dumps, serve, set_up_logs
from stromkreis.socks_adapter import Gateway, SocksAdapter
from stromkreis.system_server import SystemServer, gateway_certificate, server_context

_ID = re.compile(r"[A-Za-z0-9.-]{1,56}")
_LIFETIME = timedelta(days=3652)


def cls_adapter(
    *,
    certificate: Annotated[Path, typer.Option(help="PEM file of the system's key and certificate.")],
    device: Annotated[
        str | None, typer.Option("--id", help="The system's id (DIN 43849): makes the file if there is none.")
    ] = None,
    gateway: Annotated[
        str | None, typer.Option(help="The gateway's HOST:PORT for controllable systems, or its id with --interface.")
    ] = None,
    interface: Annotated[
        str | None, typer.Option(help="Network interface at home, to find the gateway by multicast DNS.")
    ] = None,
    gateway_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the gateway's home certificate.")] = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT where programs speak SOCKS5.")] = "127.0.0.1:1080",
    serve_at: Annotated[
        str | None, typer.Option("--serve", help="HOST:PORT for connections that the gateway begins.")
    ] = None,
    forward: Annotated[
        str | None, typer.Option(help="HOST:PORT of the program that connections of --serve are passed on to.")
    ] = None,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevel = "INFO",
) -> None:
    """
    Speak SOCKS-TLS (BSI TR-03109-1, details, chapter 11) to the gateway and plain SOCKS5 to local programs.

    Without --gateway it prints what the administrator's profile set needs to know of the certificate.

    Example: stromkreis cls-adapter --certificate cls.pem --id 1ABC0012345678

    Then: stromkreis cls-adapter --certificate cls.pem --gateway 192.168.1.200:1080 --gateway-sha256 5d5f...

    And: curl --socks5-hostname 127.0.0.1:1080 https://emp.example/

    With --interface eth0 the gateway is found by multicast DNS: --gateway smgw.local:1080, or --gateway ESTK0100000001.

    With --serve 0.0.0.0:4443 --forward 127.0.0.1:80 it also takes connections that the gateway begins, over TLS, and
    passes them on to a program of this machine.
    """
    if device is not None and not certificate.exists():
        make_certificate(certificate, device)
    context = context_of(certificate)
    if gateway is None or gateway_sha256 is None:
        show(certificate)
        return
    host, port, dial = way_to(gateway, interface)
    local = host_port(listen, "--listen")
    shown = gateway_sha256.replace(":", "").lower()
    if len(shown) != 64 or not set(shown) <= set("0123456789abcdef"):
        raise StromkreisError(f"--gateway-sha256: {len(shown)} characters, expected 64 hexadecimal ones")
    if (serve_at is None) != (forward is None):
        raise StromkreisError("--serve and --forward: expected both, or none of them")
    begun = None
    if serve_at is not None and forward is not None:
        begun = _Begun(certificate, host_port(serve_at, "--serve"), host_port(forward, "--forward"))
    set_up_logs(log_format, log_level)
    forbid_core_dumps()
    known = Gateway(host=host, port=port, fingerprint=shown, context=context, dial=dial)
    serve(lambda: _run(known, local, begun))


def way_to(gateway: str, interface: str | None) -> tuple[str, int, Callable[[str, int], Awaitable[trio.SocketStream]]]:
    """Host and port to show, and how to connect with the gateway.  Raises StromkreisError."""
    if interface is None:
        return *host_port(gateway, "--gateway"), trio.open_tcp_stream
    lookup = Lookup([interface], random.SystemRandom())
    if not is_gateway_id(gateway.upper()):
        return *host_port(gateway, "--gateway"), lookup.connect

    async def found(_host: str, _port: int) -> trio.SocketStream:
        port, addresses = await lookup.service(instance_of(gateway), CLS_SERVICE)
        return await connect_first(addresses, port)

    return gateway, 0, found


class _Begun(NamedTuple):
    """What the gateway begins: the file of key and certificate, where it connects, where the program is."""

    file: Path
    listen: tuple[str, int]
    target: tuple[str, int]


async def _run(gateway: Gateway, local: tuple[str, int], begun: _Begun | None) -> None:
    rng = random.SystemRandom()
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(SocksAdapter(gateway, rng).serve, *local)
        typer.echo(f"SOCKS5 at {local[0]}:{bound}, for the gateway at {gateway.host}:{gateway.port}", err=True)
        if begun is not None:
            context = server_context(begun.file, await gateway_certificate(gateway, rng))
            bound = await nursery.start(SystemServer(context, begun.target).serve, *begun.listen)
            typer.echo(f"TLS at {begun.listen[0]}:{bound} for the gateway", err=True)


def make_certificate(file: Path, device: str) -> None:
    """A key on P-256 and its certificate (CT_Selfsigned, chapter 4), for their owner alone.  Raises StromkreisError."""
    if not _ID.fullmatch(device):
        raise StromkreisError(f"--id: {device}, expected up to 56 letters, digits, points and hyphens")
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.now(UTC) - timedelta(days=1)
    made = make_self_signed(
        HanRole.CLS, device, key, serial=secrets.randbits(120) | 1 << 120, not_before=begin,
        not_after=begin + _LIFETIME,
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(private + made.public_bytes(Encoding.PEM))


def context_of(file: Path) -> ssl.SSLContext:
    """For the gateway, whose certificate is compared after the handshake.  Raises StromkreisError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.load_cert_chain(file)
    except FileNotFoundError:
        raise StromkreisError(f"{file}: no such file; --id makes it") from None
    except ssl.SSLError as error:
        raise StromkreisError(f"{file}: expected a private key and its certificate in PEM") from error
    return context


def show(file: Path) -> None:
    """Print a certificate as a profile set has it."""
    loaded = x509.load_pem_x509_certificate(file.read_bytes())
    typer.echo(f"han[].certificate: {loaded.fingerprint(hashes.SHA256()).hex()}")
    typer.echo(f"certificates[]:    {base64.b64encode(loaded.public_bytes(Encoding.DER)).decode()}")


def host_port(text: str, option: str) -> tuple[str, int]:
    """The host and port of an option.  Raises StromkreisError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise StromkreisError(f"{option}: {text}, expected HOST:PORT")
    return host.strip("[]"), int(port)
