"""
Enrolment: how a gateway that holds nothing but a token becomes one that rings accept.

The administrator hands out a token (for one gateway or a batch of them, maybe for one area only).  The gateway sends it
over HTTPS with a signing request, its CURVE public key and the area it stands in; back come its certificate chain and
what it needs to call the coordinator.  A token is worth 256 random bits, so a plain SHA-256 keeps it safe at rest.

The whole decision is one database transaction: the use is taken from the token and the gateway enters the directory
together or not at all, so that neither a crash nor two gateways at the same moment can spend a use twice.  An answer
can be lost on its way: the same request (id, keys, area, token) is answered again without another use.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.gwa.ca import CertificateAuthority
from coordinator.storage.gateways import (
    EnrolmentTransaction,
    GatewayRecord,
    GatewayRepository,
    GatewayStatus,
    TokenRecord,
)
from protocol import pki
from protocol.errors import LocalProtocolError, RemoteProtocolError

TOKEN_PREFIX = "stk_"  # noqa: S105 - lets secret scanners recognise a token that went astray
AREA_LENGTH_MAX = 64
CURVE_KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What a gateway asks with: `signing_request` is PKCS#10 DER, `curve_key` 32 bytes."""

    token: str
    gateway_id: str
    area: str
    signing_request: bytes
    curve_key: bytes


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a gateway is answered: its chain (PEM, leaf first) and how to reach the coordinator."""

    certificate_chain: str
    coordinator_curve_key: bytes
    endpoint: str


class Directory:
    """Changes to the directory of gateways and to the tokens that admit new ones."""

    def __init__(self, gateways: GatewayRepository) -> None:
        self._gateways = gateways

    def create_token(
        self, now: datetime, *, label: str = "", uses: int = 1, validity: timedelta = timedelta(days=14),
        area: str | None = None,
    ) -> str:  # fmt: skip
        """
        A new enrolment token; the only time that it can be seen.

        Raises LocalProtocolError for a token that could never be used.
        """
        if uses < 1 or validity <= timedelta(0):
            raise LocalProtocolError("a token needs at least one use and some time to be used in")
        if area is not None:
            check_area(area)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        self._gateways.add_token(
            TokenRecord(_digest(token), label[:80], area, uses, uses, _ms(now), _ms(now + validity))
        )
        return token

    def revoke(self, gateway_id: str, now: datetime) -> bool:
        """Revoke a gateway for good; False where there is no active one of this id."""
        return self._gateways.revoke(gateway_id, _ms(now))


class Enrolment:
    """Answers enrolment requests.  `coordinator_curve_key` and `endpoint` are handed to every gateway."""

    def __init__(
        self, gateways: GatewayRepository, authority: CertificateAuthority, *, coordinator_curve_key: bytes,
        endpoint: str,
    ) -> None:  # fmt: skip
        if len(coordinator_curve_key) != CURVE_KEY_SIZE:
            raise LocalProtocolError(f"a CURVE key has {CURVE_KEY_SIZE} bytes")
        self._gateways = gateways
        self._authority = authority
        self._coordinator_curve_key = coordinator_curve_key
        self._endpoint = endpoint

    def enrol(self, request: EnrolmentRequest, now: datetime) -> Enrolled:
        """
        Admit one gateway, or say why not.

        Raises RemoteProtocolError: what `protocol.pki.check_request` raises, `gateway_id_mismatch`, `area_name`,
        `curve_key`, `token_unknown`, `token_expired`, `token_used_up`, `token_area`, `duplicate_gateway` (the id is
        taken by other keys), `duplicate_key` (a key belongs to another gateway), `gateway_revoked`.
        """
        check_area(request.area)
        if len(request.curve_key) != CURVE_KEY_SIZE or not any(request.curve_key):
            raise RemoteProtocolError("curve_key", f"expected {CURVE_KEY_SIZE} bytes that are not all zero")
        token = _digest(request.token)
        # Without a token nobody learns which gateways there are, no signature is checked, and no write lock is taken.
        if not self._gateways.has_token(token):
            raise RemoteProtocolError("token_unknown", "no such enrolment token")
        signing = pki.check_request(request.signing_request)
        if signing.gateway_id != request.gateway_id:
            raise RemoteProtocolError("gateway_id_mismatch", "the signing request names another gateway")
        key_digest = _key_digest(signing.public_key)
        with self._gateways.enrolment() as transaction:
            known = transaction.same(request.gateway_id, key_digest, request.curve_key)
            if known:
                return self._answer(_repeated(known, request, key_digest, token))
            _take_use(transaction, token, request.area, now)
            certificate = self._authority.issue_gateway(request.gateway_id, signing.public_key, now)
            made = GatewayRecord(
                request.gateway_id, request.area, pki.to_der(certificate), key_digest, request.curve_key,
                GatewayStatus.ACTIVE, _ms(now), None, token,
            )  # fmt: skip
            if not transaction.add(made):  # the exception gives the use back
                raise RemoteProtocolError("duplicate_gateway", "enrolled by another request at the same moment")
        return self._answer(certificate)

    def _answer(self, certificate: x509.Certificate) -> Enrolled:
        return Enrolled(self._authority.chain_pem(certificate), self._coordinator_curve_key, self._endpoint)


def check_area(area: str) -> None:
    """Raises RemoteProtocolError `area_name` unless the area is 1 to 64 printable characters without outer spaces."""
    if not 1 <= len(area) <= AREA_LENGTH_MAX or not area.isprintable() or area != area.strip():
        raise RemoteProtocolError("area_name", f"expected 1 to {AREA_LENGTH_MAX} printable characters")


def _repeated(
    known: Sequence[GatewayRecord], request: EnrolmentRequest, key_digest: bytes, token: bytes
) -> x509.Certificate:
    mine = next((each for each in known if each.gateway_id == request.gateway_id), None)
    if mine is None:
        raise RemoteProtocolError("duplicate_key", "a key of this request belongs to another gateway")
    if (mine.key_digest, mine.curve_key) != (key_digest, request.curve_key):
        raise RemoteProtocolError("duplicate_gateway", "this gateway id is enrolled with other keys")
    if mine.status is not GatewayStatus.ACTIVE:
        raise RemoteProtocolError("gateway_revoked", "this gateway was revoked")
    if (mine.area, mine.token) != (request.area, token):
        raise RemoteProtocolError("duplicate_gateway", "this gateway was enrolled by another token or in another area")
    return pki.load_certificate(mine.certificate)


def _take_use(transaction: EnrolmentTransaction, digest: bytes, area: str, now: datetime) -> None:
    token = transaction.token(digest)
    if token is None:
        raise RemoteProtocolError("token_unknown", "no such enrolment token")
    if token.expires_ms <= _ms(now):
        raise RemoteProtocolError("token_expired", "the enrolment token is too old")
    if token.area not in (None, area):
        raise RemoteProtocolError("token_area", "the enrolment token is for another area")
    if not transaction.take_use(digest):
        raise RemoteProtocolError("token_used_up", "the enrolment token has no use left")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _key_digest(public_key: ec.EllipticCurvePublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public_key.public_bytes(serialization.Encoding.DER, form)).digest()


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)
