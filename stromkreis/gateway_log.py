"""`stromkreis log`: the system, consumer and calibration logs of gateways, and whether a calibration log is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from node.config import NodeConfig
from node.configured import key_backend
from node.security.storage_key import FILE_NAME, FileStorageKeys
from node.storage.cipher import store_cipher
from node.storage.repositories.gateway_logs import GatewayLogReader, read_beside
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.logs.chain import HASH_SIZE, ChainedEntry, Head, verify
from protocol.logs.events import BY_NUMBER, Language, Log, text_of
from protocol.pki.profiles import signature_hash
from stromkreis.config import load
from stromkreis.services import ConfigFile

app = typer.Typer(help="The logs of gateways: show them, export and verify calibration logs.", no_args_is_help=True)

GatewayId = Annotated[str | None, typer.Option("--gateway", help="Whose.", show_default="the only one of the node")]
_BATCH = 1000


@app.command()
def show(
    which: Annotated[Log, typer.Argument(help="Which log.")] = Log.SYSTEM, *, gateway: GatewayId = None,
    language: Annotated[Language, typer.Option(help="Of the texts.")] = Language.ENGLISH, config: ConfigFile = None,
) -> None:  # fmt: skip
    """
    Show a log, oldest entry first; the node may be running.

    Each line: number, time (UTC), level (I, W, E, F), event number, text.

    Example: stromkreis log show consumer --language de -c stromkreis.toml
    """
    with _logs(config) as logs:
        for entry in _entries(logs, _one_of(logs, gateway), which):
            at = datetime.fromtimestamp(entry.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
            kind = BY_NUMBER.get(entry.event)
            level = "?" if kind is None else kind.level.value
            typer.echo(
                f"{entry.number:6d} {at} {level} {entry.event} {text_of(entry.event, entry.parameters, language)}"
            )


@app.command()
def export(*, gateway: GatewayId = None, config: ConfigFile = None) -> None:
    """
    Print the calibration log as JSON lines, for `stromkreis log verify` and for whoever keeps it.

    Example: stromkreis log export -c stromkreis.toml > calibration.jsonl
    """
    with _logs(config) as logs:
        for entry in _entries(logs, _one_of(logs, gateway), Log.CALIBRATION):
            typer.echo(entry.to_json())


@app.command("verify")
def verify_file(
    file: Annotated[Path, typer.Argument(help="An exported calibration log.", exists=True, dir_okay=False)],
    certificate: Annotated[
        Path, typer.Option(help="The gateway's signature certificate, PEM or DER.", exists=True, dir_okay=False)
    ],
    head: Annotated[
        str | None, typer.Option(help="NUMBER:HASH of the newest entry as it was noted before.", show_default="none")
    ] = None,
) -> None:
    """
    Check a calibration log: no gap, no change, signatures of this gateway, and with --head no end that was cut off.

    Prints the newest entry's NUMBER:HASH: note it elsewhere for the next time. Exit status 1 where something is wrong.

    Example: stromkreis log verify calibration.jsonl --certificate gateway.pem --head 41:9f2c...
    """
    found = verify(_read(file), _check_of(certificate), None if head is None else _head(head))
    for finding in found.findings:
        typer.echo(f"{file}: {finding}", err=True)
    if found.head is not None:
        typer.echo(f"{found.head.number}:{found.head.hash.hex()}")
    if head is None:
        typer.echo(f"{file}: without --head an end that was cut off is not noticed", err=True)
    if found.findings or found.head is None:
        typer.echo(f"{file}: {found.count} entries, not whole", err=True)
        raise typer.Exit(1)
    typer.echo(f"{file}: {found.count} entries, whole", err=True)


@contextmanager
def _logs(config: Path | None) -> Iterator[GatewayLogReader]:
    settings = load(NodeConfig, "node", config)
    keys_file = settings.keys_path / FILE_NAME
    if not settings.store_path.exists() or not keys_file.exists():
        raise StromkreisError(f"{settings.store_path}: no store of a node here; expected --config of one that has run")
    backend = key_backend(settings)
    try:
        with read_beside(settings.store_path, store_cipher(FileStorageKeys(keys_file, backend=backend))) as logs:
            yield logs
    finally:
        backend.close()


def _one_of(logs: GatewayLogReader, wanted: str | None) -> str:
    known = logs.gateways()
    if wanted in known:
        return str(wanted)
    shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "") or "none"
    if wanted is not None:
        raise StromkreisError(f"gateway {wanted!r} has no log here; there are {shown}")
    if len(known) != 1:
        raise StromkreisError(f"expected --gateway with one of: {shown}")
    return known[0]


def _entries(logs: GatewayLogReader, gateway: str, which: Log) -> Iterator[ChainedEntry]:
    after = 0
    while batch := logs.entries(gateway, which, after=after, limit=_BATCH):
        yield from batch
        after = batch[-1].number


def _read(file: Path) -> Iterator[ChainedEntry]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield ChainedEntry.from_json(line)
            except RemoteProtocolError as error:
                raise StromkreisError(f"{file}, line {number}: {error.detail}") from error


class SignatureCheck:
    """Whether a text was signed by a gateway (protocol.logs.chain.verify)."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    def __call__(self, signature: bytes, text: bytes) -> bool:
        """Whether `signature` (DER) is the gateway's under `text`."""
        try:
            self._key.verify(signature, text, ec.ECDSA(signature_hash(self._key)))
        except InvalidSignature:
            return False
        return True


def _check_of(file: Path) -> SignatureCheck:
    data = file.read_bytes()
    try:
        read = x509.load_pem_x509_certificate if data.startswith(b"-----") else x509.load_der_x509_certificate
        key = read(data).public_key()
    except ValueError as error:
        raise StromkreisError(f"{file}: no certificate; expected PEM or DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise StromkreisError(f"{file}: a certificate of another kind; expected one with a key on an elliptic curve")
    return SignatureCheck(key)


def _head(text: str) -> Head:
    number, _, digest = text.partition(":")
    try:
        head = Head(int(number), bytes.fromhex(digest))
    except ValueError:
        head = Head(0, b"")
    if head.number < 1 or len(head.hash) != HASH_SIZE:
        raise StromkreisError(
            f"--head: expected NUMBER:HASH with {2 * HASH_SIZE} hexadecimal digits, as verify prints it"
        )
    return head
