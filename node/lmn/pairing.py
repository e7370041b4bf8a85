"""
The certificates by which gateway and meter of the wired LMN know each other: kept, renewed in time, unused after their
end (BSI TR-03109-1 detailed specification 3 and 9.3.1, 9.3.2).

Intuition: what a meter holds is only known once it shows it.  So each step is one of two: make the next certificate,
write it down and send it; or, in a later session, see that it is in use and forget the old one.  A lost answer, a crash
anywhere between and a meter that received them twice all come out the same, and neither end is ever locked out: until
it is seen in use the gateway believes the meter under both of its certificates, and shows its own next one first and
the old one after it.

The first pair comes with the configuration; what is renewed lives in the node's store and counts as long as the
configuration names the pair that it grew from.  A new pair there (a meter paired anew) wins.  Past its end no
certificate is shown or believed: the meter is then not read, and an event says why.

How long such certificates live stands in TR-03109-3, which is not at hand: it is a setting.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgpack
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.lmn.hdlc.certificate import Identity, make_certificate
from node.lmn.metrics import LMN_CERTIFICATES_RENEWED, certificate_ends
from node.storage.errors import StoreError
from protocol.errors import LocalProtocolError, RemoteProtocolError

_SLOW_CLOCK: Final = timedelta(days=1)  # a meter whose clock is behind must not find its certificate not yet valid
_PATIENCE: Final = timedelta(days=1)  # between two attempts with a meter that refuses
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """
    New certificates live for `life`; one that ends within `before`, or was made before `issued_after`, is renewed.

    `issued_after` in the future counts from then on.
    """

    life: timedelta = timedelta(days=2_557)
    before: timedelta = timedelta(days=90)
    issued_after: datetime | None = None

    def is_due(self, certificate: bytes, now: datetime) -> bool:
        """Whether a certificate (DER) is to be renewed."""
        begin, end = lifetime(certificate)
        revoked = self.issued_after is not None and begin < self.issued_after - _SLOW_CLOCK and self.issued_after <= now
        return revoked or end - now <= self.before


@dataclass(frozen=True, slots=True)
class Pairing:
    """
    What a gateway has of one meter: its own `identity` towards it, and the meter's certificate (DER).

    `next_meter` and `next_own` were made and written down; whether the meter has them is not known yet.
    """

    own: Identity
    meter: bytes
    next_meter: Identity | None = field(default=None, repr=False)
    next_own: Identity | None = field(default=None, repr=False)

    @property
    def digest(self) -> bytes:
        """By which a configured pair is known again."""
        return hashlib.sha256(b"stromkreis lmn pairing\0" + self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """For the store."""
        rest = [(each.certificate, each.private_key) if each else None for each in (self.next_meter, self.next_own)]
        encoded: bytes = msgpack.packb((self.own.certificate, self.own.private_key, self.meter, *rest))
        return encoded

    @classmethod
    def from_bytes(cls, data: bytes) -> Pairing:
        """Inverse of `to_bytes`."""
        certificate, key, meter, next_meter, next_own = msgpack.unpackb(data)
        rest = [Identity(*each) if each else None for each in (next_meter, next_own)]
        return cls(Identity(certificate, key), meter, *rest)

    def credential_candidates(self, now: datetime) -> list[tuple[Identity, list[bytes]]]:
        """
        What to show and whom to believe, the likeliest first.

        Raises RemoteProtocolError `certificate_expired` where there is nothing left to show or to believe.
        """
        shown = [each for each in (self.next_own, self.own) if each is not None]
        believed = [self.meter] if self.next_meter is None else [self.meter, self.next_meter.certificate]
        usable = [each for each in shown if _is_valid(each.certificate, now)]
        valid = [each for each in believed if _is_valid(each, now)]
        if not usable or not valid:
            whose, last = ("the gateway's", shown[-1].certificate) if not usable else ("the meter's", believed[-1])
            begin, end = lifetime(last)
            detail = f"{whose} certificate holds from {begin:%Y-%m-%d} to {end:%Y-%m-%d}: check the clock, or pair anew"
            raise RemoteProtocolError("certificate_expired", detail)
        return [(each, valid) for each in usable]


class PairingSession(Protocol):
    """The open session through which certificates go."""

    peer_certificate: bytes

    async def renew_meter_certificate(self, certificate_and_key: bytes) -> None:
        """Raises RemoteProtocolError, `meter_refused` where the meter says no."""

    async def renew_gateway_certificate(self, certificate: bytes) -> None:
        """As above."""


class PairingTable(Protocol):
    """What renewed pairings are kept in; see node.storage.repositories.pairings."""

    def pairing(self, meter: str, origin: bytes) -> bytes | None: ...  # noqa: D102
    async def keep(self, meter: str, origin: bytes, pairing: bytes) -> None: ...  # noqa: D102


class PairingStore:
    """The renewed pairings of a node, in its store."""

    def __init__(self, table: PairingTable, policy: RenewalPolicy) -> None:
        self._table = table
        self.policy = policy

    def load(self, meter_id: str, configured: Pairing) -> Pairing:
        """What has become of the configured pair.  Raises StoreError."""
        renewed = self._table.pairing(meter_id, configured.digest)
        return configured if renewed is None else Pairing.from_bytes(renewed)

    async def save(self, meter_id: str, configured: Pairing, pairing: Pairing) -> None:
        """Return when it is on the disk.  Raises StoreError: then nothing may be sent."""
        await self._table.keep(meter_id, configured.digest, pairing.to_bytes())


class PairedMeter:
    """One meter's pairing over the sessions with it.  Without a store nothing is renewed."""

    def __init__(self, meter_id: str, configured: Pairing, store: PairingStore | None) -> None:
        self.meter_id = meter_id
        self._configured = configured
        self._store = store
        self.pairing = configured if store is None else store.load(meter_id, configured)
        self._not_before: datetime | None = None

    def credential_candidates(self, now: datetime) -> list[tuple[Identity, list[bytes]]]:
        """As `Pairing.credential_candidates`; the metric hears of the first end."""
        ends = [lifetime(each)[1] for each in (self.pairing.own.certificate, self.pairing.meter)]
        certificate_ends(self.meter_id, min(ends).timestamp())
        return self.pairing.credential_candidates(now)

    async def keep(self, shown: Identity, session: PairingSession, now: datetime) -> list[RemoteProtocolError]:
        """
        In a session that has worked: see what is in use, and renew what is due, one certificate a session.

        Gives `certificate_not_renewed` instead of raising: the readings of the session are good.
        """
        if self._store is None:
            return []
        try:
            await self._settle(self._store, shown, session.peer_certificate)
            if self._not_before is None or self._not_before <= now:
                await self._renew(self._store, session, now)
        except (RemoteProtocolError, LocalProtocolError, StoreError) as error:
            refused = isinstance(error, RemoteProtocolError) and error.reason == "meter_refused"
            self._not_before = now + _PATIENCE if refused else None
            return [RemoteProtocolError("certificate_not_renewed", f"{error}; the old one is still in use")]
        return []

    async def _settle(self, store: PairingStore, shown: Identity, seen: bytes) -> None:
        now = self.pairing
        if now.next_meter is not None and seen == now.next_meter.certificate:
            await self._write(store, replace(now, meter=seen, next_meter=None))
            self._renewed("meter", seen)
        if now.next_own is not None and shown == now.next_own:
            await self._write(store, replace(self.pairing, own=shown, next_own=None))
            self._renewed("gateway", shown.certificate)

    async def _renew(self, store: PairingStore, session: PairingSession, now: datetime) -> None:
        policy, have = store.policy, self.pairing
        if have.next_meter is not None or policy.is_due(have.meter, now):
            following = have.next_meter
            if following is None or policy.is_due(following.certificate, now):
                following = _next(have.meter, policy, now)
                await self._write(store, replace(have, next_meter=following))
            await session.renew_meter_certificate(following.to_bytes())
        elif have.next_own is not None or policy.is_due(have.own.certificate, now):
            following = have.next_own
            if following is None or policy.is_due(following.certificate, now):
                following = _next(have.own.certificate, policy, now)
                await self._write(store, replace(have, next_own=following))
            await session.renew_gateway_certificate(following.certificate)

    async def _write(self, store: PairingStore, pairing: Pairing) -> None:
        await store.save(self.meter_id, self._configured, pairing)
        self.pairing = pairing

    def _renewed(self, whose: str, certificate: bytes) -> None:
        LMN_CERTIFICATES_RENEWED.labels(whose).inc()
        end = lifetime(certificate)[1]
        _log.info("LMN certificate renewed: the %s's, meter %s, until %s", whose, self.meter_id, f"{end:%Y-%m-%d}")


def lifetime(certificate: bytes) -> tuple[datetime, datetime]:
    """Begin and end of a certificate (DER).  Raises ValueError for what is none."""
    found = x509.load_der_x509_certificate(certificate)
    return found.not_valid_before_utc, found.not_valid_after_utc


def _is_valid(certificate: bytes, now: datetime) -> bool:
    begin, end = lifetime(certificate)
    return begin <= now < end


def _next(certificate: bytes, policy: RenewalPolicy, now: datetime) -> Identity:
    """A new key on the same curve, under the same name."""
    old = x509.load_der_x509_certificate(certificate)
    public = old.public_key()
    curve = public.curve if isinstance(public, ec.EllipticCurvePublicKey) else ec.BrainpoolP256R1()
    names = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    device = str(names[0].value).removesuffix(".sm").upper() if names else ""
    key = ec.generate_private_key(curve)
    begin = now - _SLOW_CLOCK
    return Identity.of(make_certificate(device, key, x509.random_serial_number(), begin, now + policy.life), key)
