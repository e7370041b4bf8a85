"""
A PKI directory with all that a coordinator reads from it, so that it may be mounted where nothing can be written.

What is in the directory is left as it is; only what is missing is made.  Without `root.key`, which belongs into a safe,
the coordinator runs as well: the root signs nothing but sub-CAs and its own revocation list, which is made here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.config import CoordinatorConfig
from coordinator.gwa.ca import ROOT_FILE, CertificateAuthority
from coordinator.gwa.participants import TariffSigner, administrator_keys, participant_keys
from coordinator.gwa.revocation import offline_list
from protocol import pki


def web_hosts(config: CoordinatorConfig) -> list[str]:
    """The names and addresses by which the web server is called."""
    hosts = {"localhost", "127.0.0.1"}
    for address in (*config.web.listen, *([config.web.public_url] if config.web.public_url else [])):
        host = urlsplit(address).hostname
        if host and host not in {"0.0.0.0", "::"}:  # noqa: S104 - a name to leave out, not an address to bind
            hosts.add(host)
    return sorted(hosts)


def complete(
    directory: Path, now: datetime, *, organisation: str = "Stromkreis", hosts: Iterable[str] = ("localhost",),
    curve: type[ec.EllipticCurve] = pki.CURVE,
) -> list[str]:  # fmt: skip
    """
    Make what is missing in the directory; the names of the files made.

    `organisation`, `hosts` and `curve` are of a PKI that is new.  Raises LocalProtocolError for one that is damaged or
    is there in part.
    """
    known = _files(directory)
    if (directory / ROOT_FILE).exists():
        authority = CertificateAuthority.load(directory)
    else:
        authority = CertificateAuthority.create(directory, now, organisation=organisation, hosts=hosts, curve=curve)
    administrator_keys(directory, authority, now)
    participant_keys(directory, authority, now)
    TariffSigner(directory, authority, now)
    offline_list(directory, "root", now)
    return sorted(_files(directory) - known)


def _files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.exists() else set()
