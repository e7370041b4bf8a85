"""
A gateway's certificates over their life: checked when they come, renewed before they end, neighbours' revoked.

One task of the node looks every `revocation_check_s`: it fetches the revocation lists, keeps them beside the keys for
the next start, and asks for the next triple of each gateway whose certificates end soon.  What fails is reported and
tried again; until the lists end everything goes on with those that are here.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from node.security.module import GatewaySecurityModule
from node.trust import TrustStore
from node.wan.bounded_http import ask
from protocol import pki
from protocol.errors import RemoteProtocolError, StromkreisError

MALFORMED: Final = (KeyError, ValueError, TypeError, AttributeError, RecursionError)
"""What reading an answer raises that is JSON of another shape, or none."""

log = logging.getLogger(__name__)
_LISTS_FILE: Final = "revocation-lists.pem"


def read_triple(
    answer: dict[str, Any], identity: str, root: x509.Certificate, now: datetime
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """
    The certificates of an answer (DER: signature, encryption, TLS) and those above them, checked up to the root.

    Raises RemoteProtocolError, KeyError or ValueError for an answer that does not hold.
    """
    chain = x509.load_pem_x509_certificates(answer["certificate_chain"].encode())
    names = ("encryption_certificate", "tls_certificate")
    triple = [chain[0], *(x509.load_pem_x509_certificate(answer[name].encode()) for name in names)]
    for role, certificate in zip(pki.GATEWAY_TRIPLE, triple, strict=True):
        verified = pki.verify_chain(certificate, chain[1:], root, now, role=role)
        if verified.common_name.upper() != f"{identity}.SMGW".upper():
            raise RemoteProtocolError("wrong_certificate", "the certificate names another gateway")
    return tuple(map(pki.to_der, triple)), tuple(map(pki.to_der, chain[1:]))


def package_body(module: GatewaySecurityModule) -> dict[str, str]:
    """The fields of a request that asks for a triple, with who asks where the gateway can prove it."""
    package = module.request_package()
    body = {"request_package": base64.b64encode(package).decode()}
    endorsed = module.endorse(package)
    if endorsed is not None:
        signature, chain = endorsed
        body["endorsement"] = base64.b64encode(signature).decode()
        body["seal_chain"] = "".join(_to_pem(each) for each in chain)
    return body


class CertificateKeeper:
    """Keeps lists and certificates of one node up to date, over the client that it is given."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        root: x509.Certificate,
        directory: Path,
        trust: TrustStore,
        revocations: pki.RevocationLists,
        *,
        renew_before: timedelta,
        clock: Callable[[], float],
        renewed: Callable[[Sequence[GatewaySecurityModule]], None],
    ) -> None:
        """`revocations` are those that `trust` looks at; `renewed` gets the modules after a renewal, for metrics."""
        self._client = client
        self._root = root
        self._path = directory / _LISTS_FILE
        self._trust = trust
        self._revocations = revocations
        self._renew_before = renew_before
        self._clock = clock
        self._renewed = renewed
        self._failures: set[str] = set()

    def load(self) -> None:
        """Take the lists of the last run; files that hold none are left to the next fetch."""
        try:
            self._take(self._path.read_bytes())
        except (OSError, RemoteProtocolError) as error:
            log.info("%s: no revocation lists from before (%s)", self._path, type(error).__name__)

    async def run(self, modules: Sequence[GatewaySecurityModule], every_s: float) -> None:
        """Renew what ends soon, and look again and again, until cancelled."""
        await self.renew(modules)
        while True:
            await trio.sleep(every_s)
            await self.look(modules)

    async def look(self, modules: Sequence[GatewaySecurityModule]) -> None:
        """Fetch the lists and renew what ends soon, once."""
        await self.fetch_lists()
        await self.renew(modules)

    async def fetch_lists(self) -> bool:
        """Fetch the lists once; whether that worked."""
        return await self._attempt("revocation lists", self._fetch_lists)

    async def renew(self, modules: Sequence[GatewaySecurityModule]) -> None:
        """Ask once for the next triple of each gateway whose certificates end soon."""
        renewed = False
        for module in modules:
            if self.is_due(module):
                renewed |= await self._attempt(f"renewal of {module.identity}", self._renew, module)
        if renewed:
            self._renewed(modules)

    def is_due(self, module: GatewaySecurityModule) -> bool:
        """Whether one of its certificates ends within the time set, or is missing."""
        if len(module.certificates) != len(pki.GATEWAY_TRIPLE):
            return True
        ends = (pki.load_certificate(each).not_valid_after_utc for each in module.certificates)
        return min(ends) - self._now() < self._renew_before

    async def _attempt(self, what: str, work: Callable[..., Any], *arguments: Any) -> bool:
        """Whether it worked; a failure is reported once, and once that it is over."""
        try:
            await work(*arguments)
        except (httpx.HTTPError, OSError, StromkreisError, *MALFORMED) as error:
            if what not in self._failures:
                log.warning("%s failed, tried again later: %s", what, _reason(error))
            self._failures.add(what)
            return False
        if what in self._failures:
            self._failures.discard(what)
            log.info("%s works again", what)
        return True

    async def _fetch_lists(self) -> None:
        response = await ask(self._client, "GET", "/api/v1/revocation-lists", size_max=pki.LISTS_SIZE_MAX)
        response.raise_for_status()
        if self._take(response.content):
            temporary = self._path.with_suffix(".new")
            temporary.write_bytes(response.content)
            temporary.replace(self._path)

    def _take(self, pem: bytes) -> bool:
        changed = self._revocations.take(pki.load_revocation_bundle(pem, self._root, self._now()))
        if changed:
            self._trust.forget_chains()
        return changed

    async def _renew(self, module: GatewaySecurityModule) -> None:
        body = await trio.to_thread.run_sync(package_body, module)
        body.pop("seal_chain", None)
        response = await ask(self._client, "POST", "/api/v1/renew", json=body | {"gateway": module.identity})
        if response.status_code != 201:
            raise StromkreisError(f"refused with status {response.status_code}: {refusal_text(response)}")
        certificates, above = read_triple(response.json(), module.identity, self._root, self._now())
        module.install(certificates, above)
        end = pki.load_certificate(certificates[0]).not_valid_after_utc
        log.info("gateway %s has new keys and certificates, until %s", module.identity, f"{end:%Y-%m-%d}")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def refusal_text(response: httpx.Response) -> str:
    """The reason and detail of a problem document, or what a proxy said instead."""
    try:
        problem = response.json()
        return f"{problem['reason']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return response.text[:300]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _to_pem(certificate: bytes) -> str:
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM).decode()
