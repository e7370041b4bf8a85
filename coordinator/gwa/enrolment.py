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
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, RowMapping, func, or_, select

from coordinator.gwa.ca import CertificateAuthority
from coordinator.store import Store
from coordinator.tables import gateways, tokens
from protocol import pki
from protocol.errors import LocalProtocolError, RemoteProtocolError

TOKEN_PREFIX = "stk_"  # noqa: S105 - lets secret scanners recognise a token that went astray
AREA_LENGTH_MAX = 64
CURVE_KEY_SIZE = 32


class Status(Enum):
    """Whether a gateway may take part."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Gateway:
    """One line of the directory."""

    gateway_id: str
    area: str
    certificate: bytes  # DER
    curve_key: bytes
    status: Status
    enrolled_ms: int


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
    """The gateways that were enrolled, and the tokens that admit new ones."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
        row = {
            "digest": _digest(token), "label": label[:80], "area": area, "uses_total": uses, "uses_left": uses,
            "created_ms": _ms(now), "expires_ms": _ms(now + validity),
        }  # fmt: skip
        with self._store.write() as connection:
            connection.execute(tokens.insert(), row)
        return token

    def gateways(self, *, area: str | None = None, after: str = "", limit: int | None = None) -> list[Gateway]:
        """Gateways by id, those after `after`; only those of one area where it is named."""
        statement = select(gateways).where(gateways.c.gateway_id > after).order_by(gateways.c.gateway_id).limit(limit)
        if area is not None:
            statement = statement.where(gateways.c.area == area)
        with self._store.read() as connection:
            return [_gateway(row) for row in connection.execute(statement).mappings()]

    def count(self) -> int:
        """How many gateways are active."""
        active = select(func.count()).select_from(gateways).where(gateways.c.status == Status.ACTIVE.value)
        with self._store.read() as connection:
            return connection.scalar(active) or 0

    def some(self, gateway_ids: Sequence[str]) -> dict[str, Gateway]:
        """Those of these gateways that are known, by id."""
        with self._store.read() as connection:
            rows = connection.execute(select(gateways).where(gateways.c.gateway_id.in_(gateway_ids))).mappings()
            return {row["gateway_id"]: _gateway(row) for row in rows}

    def active_by_curve_key(self, curve_key: bytes) -> Gateway | None:
        """The active gateway that owns this CURVE key: the question that the ZAP handler asks."""
        mine = (gateways.c.curve_key == curve_key, gateways.c.status == Status.ACTIVE.value)
        with self._store.read() as connection:
            row = connection.execute(select(gateways).where(*mine)).mappings().first()
        return None if row is None else _gateway(row)

    def revoked(self) -> list[str]:
        """The ids of the gateways that were shut out."""
        statement = select(gateways.c.gateway_id).where(gateways.c.status == Status.REVOKED.value)
        with self._store.read() as connection:
            return list(connection.scalars(statement))

    def revoke(self, gateway_id: str, now: datetime) -> bool:
        """Shut a gateway out for good; False where there is no active one of this id."""
        mine = (gateways.c.gateway_id == gateway_id, gateways.c.status == Status.ACTIVE.value)
        change = gateways.update().where(*mine).values(status=Status.REVOKED.value, revoked_ms=_ms(now))
        with self._store.write() as connection:
            return connection.execute(change).rowcount == 1


class Enrolment:
    """Answers enrolment requests.  `coordinator_curve_key` and `endpoint` are handed to every gateway."""

    def __init__(
        self, store: Store, authority: CertificateAuthority, *, coordinator_curve_key: bytes, endpoint: str
    ) -> None:
        if len(coordinator_curve_key) != CURVE_KEY_SIZE:
            raise LocalProtocolError(f"a CURVE key has {CURVE_KEY_SIZE} bytes")
        self._store = store
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
        # Without a token nobody learns which gateways there are.
        with self._store.read() as connection:  # a stranger costs no signature check, and never the round ledger's lock
            if connection.execute(select(tokens.c.digest).where(tokens.c.digest == token)).first() is None:
                raise RemoteProtocolError("token_unknown", "no such enrolment token")
        signing = pki.check_request(request.signing_request)
        if signing.gateway_id != request.gateway_id:
            raise RemoteProtocolError("gateway_id_mismatch", "the signing request names another gateway")
        key_digest = _key_digest(signing.public_key)
        same = or_(
            gateways.c.gateway_id == request.gateway_id, gateways.c.key_digest == key_digest,
            gateways.c.curve_key == request.curve_key,
        )  # fmt: skip
        with self._store.write() as connection:
            terms = connection.execute(select(tokens).where(tokens.c.digest == token)).mappings().one()
            known = connection.execute(select(gateways).where(same)).mappings().all()
            if known:
                return self._answer(_repeated(known, request, key_digest, token))
            _take_use(connection, terms, request.area, now)
            certificate = self._authority.issue_gateway(request.gateway_id, signing.public_key, now)
            row = {
                "gateway_id": request.gateway_id, "area": request.area, "certificate": pki.to_der(certificate),
                "key_digest": key_digest, "curve_key": request.curve_key, "status": Status.ACTIVE.value,
                "enrolled_ms": _ms(now), "token": token,
            }  # fmt: skip
            added = self._store.insert(gateways).values(row).on_conflict_do_nothing().returning(gateways.c.gateway_id)
            if connection.execute(added).first() is None:
                # PostgreSQL lets two transactions look before either writes; the exception gives the use back.
                raise RemoteProtocolError("duplicate_gateway", "enrolled by another request at the same moment")
        return self._answer(certificate)

    def _answer(self, certificate: x509.Certificate) -> Enrolled:
        return Enrolled(self._authority.chain_pem(certificate), self._coordinator_curve_key, self._endpoint)


def check_area(area: str) -> None:
    """Raises RemoteProtocolError `area_name` unless the area is 1 to 64 printable characters without outer spaces."""
    if not 1 <= len(area) <= AREA_LENGTH_MAX or not area.isprintable() or area != area.strip():
        raise RemoteProtocolError("area_name", f"expected 1 to {AREA_LENGTH_MAX} printable characters")


def _repeated(
    known: Sequence[RowMapping], request: EnrolmentRequest, key_digest: bytes, token: bytes
) -> x509.Certificate:
    mine = [row for row in known if row["gateway_id"] == request.gateway_id]
    if not mine:
        raise RemoteProtocolError("duplicate_key", "a key of this request belongs to another gateway")
    row = mine[0]
    if (row["key_digest"], row["curve_key"]) != (key_digest, request.curve_key):
        raise RemoteProtocolError("duplicate_gateway", "this gateway id is enrolled with other keys")
    if row["status"] != Status.ACTIVE.value:
        raise RemoteProtocolError("gateway_revoked", "this gateway was shut out")
    if (row["area"], row["token"]) != (request.area, token):
        raise RemoteProtocolError("duplicate_gateway", "this gateway was enrolled by another token or in another area")
    return pki.load_certificate(row["certificate"])


def _take_use(connection: Connection, terms: RowMapping, area: str, now: datetime) -> None:
    if terms["expires_ms"] <= _ms(now):
        raise RemoteProtocolError("token_expired", "the enrolment token is too old")
    if terms["area"] not in (None, area):
        raise RemoteProtocolError("token_area", "the enrolment token is for another area")
    left = (tokens.c.digest == terms["digest"], tokens.c.uses_left > 0)
    if connection.execute(tokens.update().where(*left).values(uses_left=tokens.c.uses_left - 1)).rowcount != 1:
        raise RemoteProtocolError("token_used_up", "the enrolment token has no use left")


def _gateway(row: RowMapping) -> Gateway:
    return Gateway(
        row["gateway_id"], row["area"], row["certificate"], row["curve_key"], Status(row["status"]), row["enrolled_ms"]
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _key_digest(public_key: ec.EllipticCurvePublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public_key.public_bytes(serialization.Encoding.DER, form)).digest()


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)
