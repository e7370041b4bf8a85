"""`stromkreis emp-tunnel`: programs of a market participant reach a controllable system through its gateway."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

import httpx
import trio
import typer
from cryptography import x509

from protocol import pki
from protocol.errors import StromkreisError
from protocol.link.tls import client_context, server_context
from stromkreis.cls_adapter import host_port
from stromkreis.logs import LogFormat
from stromkreis.participant_tunnel import ParticipantTunnel, Wanted
from stromkreis.services import LogFormatOption, LogLevel, forbid_core_dumps, serve, set_up_logs

_TIMEOUT_S = 10.0


def emp_tunnel(
    gateway: Annotated[str, typer.Argument(help="The gateway's id.")],
    proxy: Annotated[str, typer.Argument(help="Id of the proxy profile.")],
    *,
    administrator: Annotated[str, typer.Option(help="https://HOST:PORT of [coordinator.web] participants.")],
    certificate: Annotated[Path, typer.Option(help="PEM file of the participant's TLS chain, its own first.")],
    key: Annotated[Path, typer.Option(help="PEM file of its private key.")],
    root: Annotated[Path, typer.Option(help="PEM file of the SM-PKI root.")],
    tls: Annotated[str, typer.Option(help="HOST:PORT where the gateway connects: the profile's address.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT where programs connect.")] = "127.0.0.1:8080",
    duration_s: Annotated[
        int | None, typer.Option(min=10, max=172_800, help="End a tunnel after so long. [default: the profile's]")
    ] = None,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevel = "INFO",
) -> None:
    """
    Order a tunnel of the gateway administrator for each connection of a program, and pass octets on (scenario HKS4).

    Example: stromkreis emp-tunnel ESTK0100000001 x1 --administrator https://gwa.example:7384 --certificate emt-tls.pem
    --key emt-tls.key --root root.pem --tls 0.0.0.0:443 --listen 127.0.0.1:8080

    Then: curl http://127.0.0.1:8080/
    """
    if not pki.is_gateway_id(gateway):
        raise StromkreisError(f"{gateway}: expected a gateway's id such as ESTK0100000001")
    at, local = host_port(tls, "--tls"), host_port(listen, "--listen")
    try:
        server = server_context(certificate, key, client_root=root)
        client = client_context(root, chain=certificate, key=key)
        known = x509.load_pem_x509_certificates(root.read_bytes())[0]
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise StromkreisError(f"--certificate, --key, --root: expected PEM files that fit together ({error})") from None
    set_up_logs(log_format, log_level)
    forbid_core_dumps()
    wanted = Wanted(gateway=gateway, proxy=proxy, duration_s=duration_s)
    serve(lambda: _run(wanted, administrator, client, (server, known, chain[1:]), at, local))


async def _run(
    wanted: Wanted, administrator: str, client: ssl.SSLContext,
    trusted: tuple[ssl.SSLContext, x509.Certificate, list[x509.Certificate]], at: tuple[str, int],
    local: tuple[str, int],
) -> None:  # fmt: skip
    async with httpx.AsyncClient(base_url=administrator, timeout=_TIMEOUT_S, verify=client) as asking:
        tunnel = ParticipantTunnel(wanted, asking, *trusted)
        async with trio.open_nursery() as nursery:
            ports = await nursery.start(tunnel.serve, at, local)
            typer.echo(
                f"programs connect to {local[0]}:{ports[1]}, the gateway to {at[0]}:{ports[0]}", err=True
            )  # fmt: skip
