"""
Enrolment: how a gateway that holds nothing but a token becomes one that rings accept.

The administrator hands out a token (for one gateway or a batch of them, maybe for one area only).  The gateway sends it
over HTTPS with a package of requests for its triple, its CURVE public key and the area it stands in; back come its
certificates and what it needs to call the coordinator.  A token is worth 256 random bits, so a plain SHA-256 keeps it
safe at rest.  The token says that the administrator wants the gateway; the quality seal, whose key signs the package,
that it is the one its manufacturer made.

The whole decision is one database transaction: the use is taken from the token and the gateway enters the directory
together or not at all, so that neither a crash nor two gateways at the same moment can spend a use twice.  An answer
can be lost on its way: the same request (id, keys, area, token) is answered again without another use.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from coordinator.gwa.ca import CertificateAuthority, to_pem
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.storage.certificates import CertificateRecord
from coordinator.storage.gateways import (
    EnrolmentTransaction,
    GatewayRecord,
    GatewayRepository,
    GatewayStatus,
    TokenRecord,
)
from coordinator.storage.irrevocable import IrrevocableLog
from protocol import cms, pki
from protocol.errors import LocalProtocolError, RemoteProtocolError

TOKEN_PREFIX = "stk_"  # noqa: S105 - lets secret scanners recognise a token that went astray
AREA_LENGTH_MAX = 64
TOKEN_NAME_LENGTH_MIN = 8  # hexadecimal digits of a token's digest, by which it is listed and revoked
CURVE_KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """
    What a gateway asks with: `package` as `pki.check_package` has it, `curve_key` 32 bytes.

    `endorsement` is a detached CMS signature over the package by the quality seal's key, `seal_chain` its certificates
    (DER, leaf first); None and empty for a gateway without a seal.
    """

    token: str
    gateway_id: str
    area: str
    package: bytes
    curve_key: bytes
    endorsement: bytes | None = None
    seal_chain: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class IssuedTriple:
    """A gateway's certificates in PEM: the signature certificate with those above it, encryption, TLS."""

    signature_chain: str
    encryption: str
    tls: str

    @classmethod
    def of(cls, triple: Sequence[x509.Certificate], authority: CertificateAuthority) -> IssuedTriple:
        """Signature, encryption, TLS, in this order."""
        signature, encryption, tls = triple
        return cls(authority.chain_pem(signature), to_pem([encryption]).decode(), to_pem([tls]).decode())


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a gateway is answered: its certificates and how to reach the coordinator."""

    certificates: IssuedTriple
    coordinator_curve_key: bytes
    list_key: bytes
    log_key: bytes
    endpoint: str


class Directory:
    """Changes to the directory of gateways and to the tokens that admit new ones."""

    def __init__(self, gateways: GatewayRepository, irrevocable: IrrevocableLog | None = None) -> None:
        """`irrevocable` is where revocations outlive the database; without one they go with it."""
        self._gateways = gateways
        self._irrevocable = irrevocable

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
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        self.declare_token(token, now, label=label, uses=uses, validity=validity, area=area)
        return token

    def declare_token(
        self, token: str, now: datetime, *, label: str, uses: int, validity: timedelta, area: str | None
    ) -> bool:
        """Have a token that somebody else has made; False where it is known, and then it stays as it is."""
        if area is not None:
            check_area(area)
        if self._gateways.has_token(_digest(token)):
            return False
        self._gateways.add_token(
            TokenRecord(_digest(token), label[:80], area, uses, uses, _ms(now), _ms(now + validity))
        )
        return True

    def revoke_token(self, name: str, now: datetime) -> TokenRecord:
        """
        Revoke a token: whoever enrolled with it stays.  `name` is the token, or its digest's beginning.

        Raises LocalProtocolError where it names none, several, or one that is revoked.
        """
        digest = _digest(name)
        named = [
            each
            for each in self._gateways.tokens()
            if each.digest == digest or (len(name) >= TOKEN_NAME_LENGTH_MIN and each.digest.hex().startswith(name))
        ]
        if len(named) != 1:
            raise LocalProtocolError(
                f"{len(named)} tokens are meant; expected a token, or the first {TOKEN_NAME_LENGTH_MIN} or more digits"
                " of its name as `stromkreis pki tokens` shows it"
            )
        if self._irrevocable is not None:
            self._irrevocable.revoke_token(named[0].digest, _ms(now))
        if not self._gateways.revoke_token(named[0].digest, _ms(now)):
            raise LocalProtocolError("this token is revoked already")
        return named[0]

    def revoke(self, gateway_id: str, now: datetime) -> bool:
        """Revoke a gateway for good; False where there is no active one of this id."""
        found = self._gateways.revocable(gateway_id)
        if found is not None and self._irrevocable is not None:
            self._irrevocable.revoke_gateway(*found, _ms(now))
        return self._gateways.revoke(gateway_id, _ms(now))

    def leave(self, gateway_id: str, now: datetime) -> int | None:
        """
        Revoke a gateway that leaves for good, also one that was revoked before; since when it has left, Unix, ms.

        None where its id was released for other keys, or there is none of this id.
        """
        known = self._gateways.some([gateway_id]).get(gateway_id)
        if known is None or known.released_ms is not None:
            return None
        self.revoke(gateway_id, now)
        if known.left_ms is None and self._irrevocable is not None:
            self._irrevocable.leave_gateway(gateway_id, _ms(now))
        return self._gateways.leave(gateway_id, _ms(now))

    def release(self, gateway_id: str, now: datetime) -> None:
        """
        Let the id of a gateway whose keys are lost be enrolled again, with others; its own are revoked for good.

        Raises LocalProtocolError where there is no active gateway of this id.
        """
        found = self._gateways.revocable(gateway_id)
        if not self.revoke(gateway_id, now):
            known = self._gateways.some([gateway_id]).get(gateway_id)
            state = "there is none" if known is None else "it was revoked, and its id is not given out again"
            if known is not None and known.left_ms is not None:
                state = "it has left for good, and its id is not given out again"
            if known is not None and known.released_ms is not None:
                state = "it is released already: enrol it"
            raise LocalProtocolError(f"expected an active gateway {gateway_id}: {state}")
        if found is not None and self._irrevocable is not None:
            self._irrevocable.release_gateway(found[0], _ms(now))
        self._gateways.release(gateway_id, _ms(now))


class Enrolment:
    """Answers enrolment requests.  Keys and `endpoint` are handed to every gateway."""

    def __init__(
        self, gateways: GatewayRepository, authority: CertificateAuthority, publisher: RevocationPublisher, *,
        coordinator_curve_key: bytes, list_key: bytes, log_key: bytes, endpoint: str, needs_seal: bool = False,
        irrevocable: IrrevocableLog | None = None, issued: Callable[[], None] = lambda: None,
        endpoints: Mapping[str, str] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """
        `endpoint` is that of the ring service, `endpoints` of those of areas that have another.

        `needs_seal` refuses gateways without a quality seal; one that is shown must hold in any case.

        `irrevocable` is where uses of tokens outlive the database; without one they go with it.  `issued` is called
        after a certificate was, from any thread.
        """
        if len(coordinator_curve_key) != CURVE_KEY_SIZE:
            raise LocalProtocolError(f"a CURVE key has {CURVE_KEY_SIZE} bytes")
        self._gateways = gateways
        self.authority = authority
        self.publisher = publisher
        self._needs_seal = needs_seal
        self._irrevocable = irrevocable
        self.directory = Directory(gateways, irrevocable)
        self.issued = issued
        self.coordinator_curve_key = coordinator_curve_key
        self.list_key = list_key
        self.log_key = log_key
        self._endpoint = endpoint
        self._endpoints = endpoints

    def endpoint_of(self, area: str | None) -> str:
        """Where the gateways of an area find their ring service."""
        return self._endpoint if area is None else self._endpoints.get(area, self._endpoint)

    def enrol(self, request: EnrolmentRequest, now: datetime) -> Enrolled:
        """
        Admit one gateway, or say why not.

        Raises RemoteProtocolError: what `pki.check_package` raises, and for the seal `pki.verify_chain` and
        `cms.verify_detached`; `quality_seal`, `gateway_id_mismatch`, `area_name`, `curve_key`, `token_unknown`,
        `token_revoked`, `token_expired`, `token_used_up`, `token_area`, `duplicate_gateway` (the id is taken by other
        keys), `duplicate_key` (a key belongs to another gateway), `gateway_revoked`, `gateway_left`.
        """
        check_area(request.area)
        if len(request.curve_key) != CURVE_KEY_SIZE or not any(request.curve_key):
            raise RemoteProtocolError("curve_key", f"expected {CURVE_KEY_SIZE} bytes that are not all zero")
        token = _digest(request.token)
        # Without a token nobody learns which gateways there are, no signature is checked, and no write lock is taken.
        if not self._gateways.has_token(token):
            raise RemoteProtocolError("token_unknown", "no such enrolment token")
        asked = pki.check_package(request.package)
        if asked[0].gateway_id != request.gateway_id:
            raise RemoteProtocolError("gateway_id_mismatch", "the signing request names another gateway")
        self._check_seal(request, now)
        digests = [key_digest(each.public_key) for each in asked]
        with self._gateways.enrolment() as transaction:
            known = transaction.same(request.gateway_id, digests[0], request.curve_key)
            released = _released(known, request, digests[0])
            if known and released is None:
                _require_repetition(known, request, digests[0], token)
                mine = transaction.certificates(request.gateway_id)[: len(digests)]
                if [each.key_digest for each in mine] != digests:
                    raise RemoteProtocolError("duplicate_gateway", "this gateway id is enrolled with other keys")
                return self._answer(request.area, [pki.load_certificate(each.certificate) for each in mine])
            _take_use(transaction, token, request.area, now)
            sequence = 1 if released is None else transaction.certificates(request.gateway_id)[0].sequence + 1
            triple = self.authority.issue_triple(asked, now, sequence=sequence)
            made = GatewayRecord(
                request.gateway_id, request.area, pki.to_der(triple[0]), digests[0], request.curve_key,
                GatewayStatus.ACTIVE, _ms(now), None, token,
            )  # fmt: skip
            enter = transaction.add if released is None else transaction.take_over
            if not enter(made, triple_records(request.gateway_id, triple, now, sequence=sequence)):
                # The exception gives the use back.
                raise RemoteProtocolError("duplicate_key", "a key of this request has a certificate already")
            if self._irrevocable is not None:
                left = transaction.token(token)
                self._irrevocable.use_token(token, 0 if left is None else left.uses_left)
        self.issued()
        return self._answer(request.area, triple)

    def _check_seal(self, request: EnrolmentRequest, now: datetime) -> None:
        if request.endorsement is None:
            if self._needs_seal:
                raise RemoteProtocolError("quality_seal", "a package that no quality seal's key has signed")
            return
        if not request.seal_chain:
            raise RemoteProtocolError("quality_seal", "a signature without the certificate of a quality seal")
        seal, *above = (pki.load_certificate(each) for each in request.seal_chain)
        lists = self.publisher.lists(now)
        role = pki.Role.SEAL_SIGNATURE
        pki.verify_chain(seal, above, self.authority.root, now, role=role, revocations=lists)
        if pki.gateway_id(seal) != request.gateway_id:
            raise RemoteProtocolError("gateway_id_mismatch", "the quality seal is another gateway's")
        cms.verify_detached(request.endorsement, request.package, [seal], cms.Limits())

    def _answer(self, area: str, triple: Sequence[x509.Certificate]) -> Enrolled:
        certificates = IssuedTriple.of(triple, self.authority)
        return Enrolled(certificates, self.coordinator_curve_key, self.list_key, self.log_key, self.endpoint_of(area))


def triple_records(
    gateway_id: str, triple: Sequence[x509.Certificate], now: datetime, *, sequence: int
) -> list[CertificateRecord]:
    """The rows of a triple that was just issued."""
    return [
        CertificateRecord(
            f"{each.serial_number:x}", gateway_id, role, sequence, pki.to_der(each), key_digest(each.public_key()),
            _ms(now), _ms(each.not_valid_after_utc),
        )
        for role, each in zip(pki.GATEWAY_TRIPLE, triple, strict=True)
    ]  # fmt: skip


def check_area(area: str) -> None:
    """Raises RemoteProtocolError `area_name` unless the area is 1 to 64 printable characters without outer spaces."""
    if not 1 <= len(area) <= AREA_LENGTH_MAX or not area.isprintable() or area != area.strip():
        raise RemoteProtocolError("area_name", f"expected 1 to {AREA_LENGTH_MAX} printable characters")


def _released(known: Sequence[GatewayRecord], request: EnrolmentRequest, digest: bytes) -> GatewayRecord | None:
    """The only one that is known, where it has the id, and gave it up, and none of the keys."""
    match known:
        case [GatewayRecord(released_ms=int()) as found]:
            is_other = found.key_digest != digest and found.curve_key != request.curve_key
            return found if found.gateway_id == request.gateway_id and is_other else None
        case _:
            return None


def _require_repetition(known: Sequence[GatewayRecord], request: EnrolmentRequest, digest: bytes, token: bytes) -> None:
    mine = next((each for each in known if each.gateway_id == request.gateway_id), None)
    if mine is None:
        raise RemoteProtocolError("duplicate_key", "a key of this request belongs to another gateway")
    if mine.left_ms is not None:
        raise RemoteProtocolError("gateway_left", "the gateway of this id has left for good")
    if (mine.key_digest, mine.curve_key) != (digest, request.curve_key):
        raise RemoteProtocolError("duplicate_gateway", "this gateway id is enrolled with other keys")
    if mine.status is not GatewayStatus.ACTIVE:
        raise RemoteProtocolError("gateway_revoked", "this gateway was revoked")
    if (mine.area, mine.token) != (request.area, token):
        raise RemoteProtocolError("duplicate_gateway", "this gateway was enrolled by another token or in another area")


def _take_use(transaction: EnrolmentTransaction, digest: bytes, area: str, now: datetime) -> None:
    token = transaction.token(digest)
    if token is None:
        raise RemoteProtocolError("token_unknown", "no such enrolment token")
    if token.revoked_ms is not None:
        raise RemoteProtocolError("token_revoked", "the enrolment token was revoked")
    if token.expires_ms <= _ms(now):
        raise RemoteProtocolError("token_expired", "the enrolment token is too old")
    if token.area not in (None, area):
        raise RemoteProtocolError("token_area", "the enrolment token is for another area")
    if not transaction.take_use(digest):
        raise RemoteProtocolError("token_used_up", "the enrolment token has no use left")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def key_digest(public_key: CertificatePublicKeyTypes) -> bytes:
    """SHA-256 of SubjectPublicKeyInfo."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public_key.public_bytes(serialization.Encoding.DER, form)).digest()


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)
