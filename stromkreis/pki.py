"""`stromkreis pki`: make a demo SM-PKI, hand out enrolment tokens, issue, show and check certificates."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from rich.console import Console
from rich.progress import track
from rich.table import Table

from coordinator.config import CoordinatorConfig
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import TOKEN_NAME_LENGTH_MIN, Directory
from coordinator.gwa.pki_setup import complete, web_hosts
from coordinator.gwa.revocation import OFFLINE_AUTHORITIES, revoke_offline
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.store import Store
from node.config import NodeConfig
from protocol import pki
from protocol.errors import LocalProtocolError, RemoteProtocolError, StromkreisError
from stromkreis.config import load
from stromkreis.pki_participant import DEFAULT_DIRECTORY as _DEFAULT_DIRECTORY
from stromkreis.pki_participant import PkiDirectory, participant
from stromkreis.services import ConfigFile

app = typer.Typer(help="A demo SM-PKI: certificates of gateways and the tokens that admit them.", no_args_is_help=True)
_CURVES = {curve.name: curve for curve in pki.CURVES}


class Curve(Enum):
    """The curves of an SM-PKI (BSI TR-03116-3)."""

    BRAINPOOL_P256 = "brainpoolP256r1"
    BRAINPOOL_P384 = "brainpoolP384r1"
    NIST_P256 = "secp256r1"
    NIST_P384 = "secp384r1"


class OfflineCa(Enum):
    """The CAs whose lists are files."""

    ROOT = "root"
    MANUFACTURER = "manufacturer"


@app.command()
def init(
    config: ConfigFile = None,
    pki_dir: Annotated[
        Path | None,
        typer.Option(
            "--pki", help="Directory of the PKI.", envvar="STROMKREIS_PKI_DIR", show_default=str(_DEFAULT_DIRECTORY)
        ),
    ] = None,
    organisation: Annotated[str, typer.Option(help="Name of the gateway administrator.")] = "Stromkreis",
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="DNS name or address by which gateways reach the coordinator, beside those of the file; repeatable."
        ),
    ] = None,
    curve: Annotated[Curve, typer.Option(help="Curve of all keys of this PKI, the gateways' included.")] = (
        Curve.BRAINPOOL_P256
    ),
) -> None:
    """
    Make all keys and certificates that a coordinator reads: root, sub-CA, TLS, administrator, participant, tariffs.

    What is there is never overwritten; run again it makes what is missing, or is to be renewed. Afterwards the
    directory may be mounted read-only, and root.key may be taken out of it. Where coordinator.keys_dir is set the ring
    service's keys are made there.
    Example: stromkreis pki init -c stromkreis.toml --host coordinator.example
    """
    settings = load(CoordinatorConfig, "coordinator", config)
    directory = pki_dir or (_DEFAULT_DIRECTORY if config is None else settings.pki_path)
    hosts = sorted({*(host or []), *(web_hosts(settings) if config is not None or not host else [])})
    try:
        made = complete(directory, _now(), organisation=organisation, hosts=hosts, curve=_CURVES[curve.value])
        if settings.keys_dir is not None:
            from coordinator.process import make_keys  # noqa: PLC0415 - all of a coordinator

            if keys := make_keys(settings):
                typer.echo(f"made in {settings.keys_dir}: {', '.join(keys)}")
    except (LocalProtocolError, OSError) as error:
        raise _failure(error) from error
    if not made:
        typer.echo(f"{directory} has a whole SM-PKI already")
        return
    typer.echo(f"made in {directory}: {', '.join(made)}")
    typer.echo("Gateways need root.pem. Keep *.key to yourself, and root.key in a safe.")


@app.command()
def manufacturer(
    name: Annotated[str, typer.Argument(help="Name of the manufacturer, as its sub-CA is called.")],
    pki_dir: PkiDirectory = _DEFAULT_DIRECTORY,
) -> None:
    """Make a manufacturer's sub-CA below the root, for quality seals.  Never overwrites."""
    try:
        CertificateAuthority.create_manufacturer(pki_dir, _now(), name)
    except LocalProtocolError as error:
        raise _failure(error) from error
    typer.echo(f"made manufacturer.pem with its key in {pki_dir}; `stromkreis pki seal` gives gateways their seals")


@app.command()
def seal(
    config: ConfigFile = None,
    pki_dir: PkiDirectory = _DEFAULT_DIRECTORY,
) -> None:
    """
    Give every gateway of a node its quality seal, as its manufacturer does before it is shipped.

    Gateways that have one are left as they are, so that it can be repeated.
    Example: stromkreis pki seal -c stromkreis.toml --pki var/coordinator/pki
    """
    from node.configured import open_keys  # noqa: PLC0415 - all of a node, which no other command of the PKI needs

    settings = load(NodeConfig, "node", config)
    try:
        authority = CertificateAuthority.load_manufacturer(pki_dir)
        keys = open_keys(settings, authority.root)
    except (LocalProtocolError, StromkreisError) as error:
        raise _failure(error) from error
    made = 0
    try:
        for gateway in track(settings.all_gateways(), description="seals", disable=not sys.stderr.isatty()):
            module = keys.open(gateway.id)
            if not module.is_sealed:
                asked = pki.check_package(module.seal_package())
                triple = authority.issue_triple(asked, _now(), roles=pki.SEAL_TRIPLE)
                module.install_seal(tuple(map(pki.to_der, triple)), (pki.to_der(authority.sub_ca),))
                made += 1
    except StromkreisError as error:
        raise _failure(error) from error
    finally:
        keys.close()
    typer.echo(f"{made} gateways got their quality seal from {authority.administrator}")


@app.command(name="revoke-serial")
def revoke_serial(
    serial: Annotated[str, typer.Argument(help="Serial number in hexadecimal, as `pki show` tells it.")],
    ca: Annotated[OfflineCa, typer.Option(help="Who issued it: root a sub-CA, manufacturer a quality seal.")],
    pki_dir: PkiDirectory = _DEFAULT_DIRECTORY,
) -> None:
    """Put a sub-CA's or a quality seal's certificate on the revocation list of its CA; gateways: `pki revoke`."""
    try:
        revoke_offline(pki_dir, ca.value, int(serial, 16), _now())
    except ValueError as error:
        raise _failure(StromkreisError(f"{serial}: expected a serial number in hexadecimal")) from error
    except LocalProtocolError as error:
        raise _failure(error) from error
    typer.echo(f"{serial} is on the list {OFFLINE_AUTHORITIES[ca.value][2]} of {pki_dir}")


@app.command()
def token(
    config: ConfigFile = None,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the coordinator's database, where no file says it.")
    ] = None,
    uses: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many gateways may enrol with it.")] = 1,
    area: Annotated[str | None, typer.Option(help="Admit to this area only.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it expires.")] = 14,
    label: Annotated[str, typer.Option(help="A note for yourself.")] = "",
) -> None:
    """
    Make an enrolment token and print it, the only time that it can be seen.

    Example: stromkreis pki token -c stromkreis.toml --uses 100 --area Nord
    """
    settings = load(CoordinatorConfig, "coordinator", config)
    if config is not None and area is not None and area not in settings.areas:
        raise _failure(StromkreisError(f"{area} is none of coordinator.areas ({', '.join(settings.areas)})"))
    url = database or settings.database_url
    if config is None and database is None:  # said where it is, a database may be made before the coordinator starts
        _require_database(url)
    store = Store(url)
    try:
        made = Directory(store.gateways).create_token(
            _now(), label=label, uses=uses, validity=timedelta(days=days), area=area
        )
    except (LocalProtocolError, RemoteProtocolError) as error:
        raise _failure(error) from error
    finally:
        store.close()
    typer.echo(made)


@app.command()
def tokens(config: ConfigFile = None) -> None:
    """
    List enrolment tokens: never themselves, but by the beginning of their digest.

    Example: stromkreis pki tokens -c stromkreis.toml
    """
    url = load(CoordinatorConfig, "coordinator", config).database_url
    _require_database(url)
    store = Store(url)
    try:
        found = store.gateways.tokens()
    finally:
        store.close()
    table = Table("name", "area", "uses left", "made", "state", "label", box=None, pad_edge=False)
    now_ms = round(_now().timestamp() * 1000)
    for each in found:
        if each.revoked_ms is not None:
            state = f"revoked {_day(each.revoked_ms)}"
        elif each.expires_ms <= now_ms:
            state = f"expired {_day(each.expires_ms)}"
        else:
            state = "used up" if not each.uses_left else f"until {_day(each.expires_ms)}"
        name = each.digest.hex()[: 2 * TOKEN_NAME_LENGTH_MIN]
        uses = f"{each.uses_left} of {each.uses_total}"
        table.add_row(name, each.area or "any", uses, _day(each.created_ms), state, each.label)
    Console(highlight=False, soft_wrap=True).print(table if found else "no tokens")


@app.command()
def revoke_token(
    name: Annotated[str, typer.Argument(help="Its name as `stromkreis pki tokens` shows it, or the token itself.")],
    config: ConfigFile = None,
) -> None:
    """Revoke an enrolment token: nobody enrols with it any more, who has stays."""
    settings = load(CoordinatorConfig, "coordinator", config)
    url = settings.database_url
    _require_database(url)
    store = Store(url)
    try:
        made = Directory(store.gateways, IrrevocableLog(settings.irrevocable_path)).revoke_token(name, _now())
    except LocalProtocolError as error:
        raise _failure(error) from error
    finally:
        store.close()
    typer.echo(f"token {made.digest.hex()[: 2 * TOKEN_NAME_LENGTH_MIN]} is revoked")


@app.command()
def revoke(
    gateway: Annotated[str, typer.Argument(help="The gateway's id.")],
    config: ConfigFile = None,
) -> None:
    """Revoke a gateway, for good; a running coordinator cuts it off within seconds."""
    settings = load(CoordinatorConfig, "coordinator", config)
    url = settings.database_url
    _require_database(url)
    store = Store(url)
    try:
        done = Directory(store.gateways, IrrevocableLog(settings.irrevocable_path)).revoke(gateway, _now())
    finally:
        store.close()
    if not done:
        typer.echo(f"there is no active gateway {gateway} in the directory", err=True)
        raise typer.Exit(1)
    typer.echo(f"{gateway} is revoked")


@app.command()
def release(
    gateway: Annotated[str, typer.Argument(help="The gateway's id.")],
    config: ConfigFile = None,
) -> None:
    """
    Let a gateway whose keys are lost (its volume, its disk) be enrolled again under its id, with new keys.

    Its old keys are revoked for good. Give its node a token that has a use left, and start it without the old store.
    """
    settings = load(CoordinatorConfig, "coordinator", config)
    url = settings.database_url
    _require_database(url)
    store = Store(url)
    try:
        Directory(store.gateways, IrrevocableLog(settings.irrevocable_path)).release(gateway, _now())
    except LocalProtocolError as error:
        raise _failure(error) from error
    finally:
        store.close()
    typer.echo(f"{gateway} is released: its keys are revoked, its id may be enrolled once more")


@app.command()
def issue(
    request: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="PKCS#10 signing request, PEM or DER.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the chain, PEM.")],
    pki_dir: PkiDirectory = _DEFAULT_DIRECTORY,
) -> None:
    """Issue a gateway certificate by hand.  It enters no directory: gateways that enrol need no `issue`."""
    try:
        data = request.read_bytes()
        if data.startswith(b"-----"):
            data = x509.load_pem_x509_csr(data).public_bytes(Encoding.DER)
        asked = pki.check_request(data)
        authority = CertificateAuthority.load(pki_dir)
        certificate = authority.issue_gateway(asked.gateway_id, asked.public_key, _now())
    except (LocalProtocolError, RemoteProtocolError, ValueError) as error:
        raise _failure(error) from error
    out.write_text(authority.chain_pem(certificate))
    typer.echo(f"issued a certificate to {asked.gateway_id} until {certificate.not_valid_after_utc:%Y-%m-%d}: {out}")


app.command()(participant)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Certificates in PEM.")],
) -> None:
    """Show what certificates say."""
    for certificate in _certificates(file):
        table = Table(show_header=False, box=None)
        rows = {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "serial": f"{certificate.serial_number:x}",
            "valid": f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            "SHA-256": certificate.fingerprint(hashes.SHA256()).hex(),
        }
        for name, value in rows.items():
            table.add_row(name, value)
        Console(highlight=False, soft_wrap=True).print(table)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The chain in PEM, leaf first.")],
    root: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The root certificate in PEM.")],
    role: Annotated[pki.Role, typer.Option(help="What the certificate is for.")] = pki.Role.GATEWAY_SIGNATURE,
    lists: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Revocation lists in PEM, from /api/v1/revocation-lists."),
    ] = None,
) -> None:
    """Check a chain up to the root; exit status 1 and the reason, with its clause, where it does not hold."""
    (leaf, *above), (anchor, *_) = _certificates(file), _certificates(root)
    revocations = None if lists is None else pki.RevocationLists()
    try:
        if lists is not None and revocations is not None:
            revocations.take(pki.load_revocation_bundle(lists.read_bytes(), anchor, _now()))
        verified = pki.verify_chain(leaf, above, anchor, _now(), role=role, revocations=revocations)
    except RemoteProtocolError as error:
        raise _failure(error) from error
    typer.echo(f"{verified.common_name}: good for {role.value} until {verified.not_after:%Y-%m-%d %H:%M} UTC")


def _require_database(url: str) -> None:
    """A file that is not there would be made, and what is written into it would be read by nobody."""
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.exists():
        raise StromkreisError(
            f"{path}: no such file; start the coordinator once, or say where its database is: --config or --database"
        )


def _certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        typer.echo(f"{file} holds no certificate in PEM", err=True)
        raise typer.Exit(1) from error


def _day(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"


def _now() -> datetime:
    return datetime.now(UTC)


def _failure(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(1)
