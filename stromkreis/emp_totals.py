"""`stromkreis emp totals`: a market participant fetches the totals that are for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer

from protocol.errors import StromkreisError
from protocol.link.tls import client_context

_TIMEOUT_S = 60.0


def totals(
    file: Annotated[Path, typer.Argument(help="CSV file to write; it must not be there yet.")],
    *,
    server: Annotated[str, typer.Option(help="https://HOST:PORT of [coordinator.web] totals.")],
    certificate: Annotated[Path, typer.Option(help="PEM file of the participant's TLS chain, its own first.")],
    key: Annotated[Path, typer.Option(help="PEM file of its private key.")],
    root: Annotated[Path, typer.Option("--pki-root", help="PEM file of the SM-PKI root.")],
    area: Annotated[str, typer.Option(help="The area.")],
    from_: Annotated[datetime, typer.Option("--from", help="First interval start, UTC unless it has a zone.")],
    to: Annotated[datetime, typer.Option("--to", help="Last interval start, exclusive.")],
) -> None:
    """
    Write an area's totals that are for a market participant as CSV: one line for each interval and quantity.

    The participant shows its own certificate; --coordinator, --root and --token-file are not used.
    Example: stromkreis emp totals north.csv --server https://coordinator.example:7386 --area north --from 2026-11-01
    --to 2026-12-01 --certificate Stadtwerke-tls.pem --key Stadtwerke-tls.key --pki-root root.pem
    """
    if not server.startswith("https://"):
        raise StromkreisError(f"{server}: expected an https address such as https://coordinator.example:7386")
    if file.exists():
        raise StromkreisError(f"{file}: it is there already; expected a new file")
    try:
        context = client_context(root, chain=certificate, key=key)
    except (OSError, ValueError) as error:
        raise StromkreisError(
            f"--certificate, --key, --pki-root: expected PEM files that fit together ({error})"
        ) from None
    query = {"area": area, "from": _utc(from_), "to": _utc(to)}
    with httpx.Client(base_url=server, verify=context, timeout=_TIMEOUT_S) as client:
        try:
            count = _write(client, query, file)
        except httpx.TransportError as error:
            file.unlink(missing_ok=True)
            raise StromkreisError(f"{server}: no whole answer ({type(error).__name__})") from None
    typer.echo(f"{count} values in {file}")


def _write(client: httpx.Client, query: dict[str, str], file: Path) -> int:
    """How many lines were written.  Raises StromkreisError for a refusal, httpx.TransportError."""
    with client.stream("GET", "/emp/v1/totals.csv", params=query) as response:
        if not response.is_success:
            response.read()
            raise StromkreisError(f"{client.base_url} refuses: {_told(response)}")
        lines = 0
        with file.open("xb") as target:
            for part in response.iter_bytes():
                target.write(part)
                lines += part.count(b"\n")
        return max(0, lines - 1)


def _told(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return f"{problem['reason']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"


def _utc(moment: datetime) -> str:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()
