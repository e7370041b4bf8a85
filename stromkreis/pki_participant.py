"""`stromkreis pki participant`: the TLS certificate of a market participant, from the demo SM-PKI."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography.hazmat.primitives import hashes

from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import certified_key
from protocol import pki
from protocol.errors import LocalProtocolError, StromkreisError

DEFAULT_DIRECTORY: Final = Path("var/coordinator/pki")
PkiDirectory = Annotated[Path, typer.Option("--pki", help="Directory of the PKI.", envvar="STROMKREIS_PKI_DIR")]
_PARTICIPANT = re.compile(r"[A-Za-z0-9-]{1,59}")


def participant(
    name: Annotated[str, typer.Argument(help="Name of the market participant: its certificate is NAME.EMT's.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for NAME-tls.key and NAME-tls.pem.")],
    pki_dir: PkiDirectory = DEFAULT_DIRECTORY,
) -> None:
    """
    Make a market participant's TLS key and certificate, by which it fetches totals and orders tunnels.

    A key that is there is kept, its certificate renewed when that is due. What is printed belongs into
    [[coordinator.recipients]], certificates.
    Example: stromkreis pki participant Stadtwerke --out stadtwerke
    """
    if _PARTICIPANT.fullmatch(name) is None:
        raise StromkreisError(f"{name}: expected 1 to 59 letters, digits and hyphens as a participant's name")
    try:
        authority = CertificateAuthority.load(pki_dir)
        made = certified_key(
            out, f"{name}-tls", authority, pki.Role.PARTICIPANT_TLS, datetime.now(UTC), organisation=name
        ).certificate  # fmt: skip
    except (LocalProtocolError, OSError) as error:
        raise StromkreisError(str(error)) from error
    typer.echo(f"{out / f'{name}-tls.pem'}, until {made.not_valid_after_utc:%Y-%m-%d}; SHA-256:")
    typer.echo(made.fingerprint(hashes.SHA256()).hex())
