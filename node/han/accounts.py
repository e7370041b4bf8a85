"""
Who may log in at home, and what is theirs: from the HAN profiles of the administrator's signed set.

Until the first set is in force the accounts of the configuration count, and from then on never again: a consumer whom
the administrator has taken out must not come back by a file, nor by a store that was put back.  A password that a
consumer has set is kept as its verifier (HA1), sealed, with the digest of the first password's verifier: a new first
password, which only a new set brings, takes its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Protocol

import msgpack
import trio

from node.han.digest import Algorithm, Verifier
from node.han.ownership import Devices, Ownership, ownership
from node.security.home_certificate import Secrets
from protocol.profiles.communication import HanProfile
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.profile_set import ProfileSet


class Role(Enum):
    """The part of the path that stands for a role (table 6.4 of the detailed specification)."""

    CONSUMER = "con"
    TECHNICIAN = "srv"
    CLS = "cls"


_ROLES: Final = {"consumer": Role.CONSUMER, "technician": Role.TECHNICIAN, "cls": Role.CLS}


CONTRACTS_KEPT: Final = timedelta(days=458)
"""Contracts that have ended are shown for 15 months."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One HAN profile of a consumer: what it is called, for which metering points, from when to when."""

    id: str
    metering_points: tuple[str, ...]
    valid_from: datetime | None = None
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """
    Somebody who may log in; `meters` are names in the metering log, empty for whoever is no consumer.

    `contracts` are in force, `ended` those of the past 15 months.
    `certificates` are fingerprints (SHA-256, hexadecimal) of TLS certificates; `first` verifies the first password;
    `facades` are the interfaces of other gateways that it may use (node.han.facades); `owned` says of which times
    values are the consumer's own.
    """

    user: str
    role: Role
    meters: tuple[str, ...] = ()
    contracts: tuple[Contract, ...] = ()
    certificates: frozenset[str] = frozenset()
    first: Verifier = field(default_factory=dict, repr=False)
    facades: frozenset[str] = frozenset()
    owned: Ownership = field(default_factory=Ownership)
    ended: tuple[Contract, ...] = ()


class Profiles(Protocol):
    """The profile set in force (node.profiles.gateway_profiles.GatewayProfiles)."""

    version: int

    @property
    def current(self) -> ProfileSet | None: ...  # noqa: D102
    @property
    def newest_version(self) -> int: ...  # noqa: D102
    @property
    def changed(self) -> trio.Event: ...  # noqa: D102
    @property
    def identity(self) -> str: ...  # noqa: D102
    def processing(self, moment: datetime) -> list[ProcessingProfile]: ...  # noqa: D102
    def devices_of(self, profile: ProcessingProfile) -> list[str | None]: ...  # noqa: D102


class Accounts:
    """
    The accounts of one gateway; `configured` count until the first profile set.

    `clock` is real time (Unix, s).
    """

    def __init__(
        self, profiles: Profiles, configured: Sequence[Account], secrets: Secrets, clock: Callable[[], float]
    ) -> None:
        self._profiles = profiles
        self._configured = tuple(configured)
        self._secrets = secrets
        self._clock = clock
        self._own: dict[str, tuple[bytes, Verifier]] = {}  # passwords set at home, as the store has them

    def all(self) -> list[Account]:
        """Those that may log in now."""
        if not self._profiles.newest_version:
            return list(self._configured)
        current = self._profiles.current
        now = datetime.fromtimestamp(self._clock(), UTC)
        by_user: dict[tuple[str, str], list[HanProfile]] = {}
        for each in () if current is None else current.han:
            by_user.setdefault((each.user, each.role), []).append(each)
        devices = [
            (each, self._profiles.devices_of(each))
            for each in (() if current is None else current.processing)
        ]  # fmt: skip
        valid = {user: [each for each in mine if each.is_valid_at(now)] for user, mine in by_user.items()}
        return [_account(present, by_user[user], devices, now) for user, present in valid.items() if present]

    def of_user(self, user: str) -> Account | None:
        """The consumer of that name: only consumers have passwords."""
        return next((each for each in self.all() if each.user == user and each.role is Role.CONSUMER), None)

    def of_certificate(self, fingerprint: str) -> Account | None:
        """Whose certificate it is."""
        return next((each for each in self.all() if fingerprint in each.certificates), None)

    def verifier(self, account: Account) -> Verifier:
        """What verifies the password that counts now.  Raises StoreError, SealError."""
        known = self._own.get(account.user)
        if known is None:
            kept = self._secrets.secret(self._profiles.identity, _name(account.user))
            known = self._own[account.user] = (b"", {}) if kept is None else _decoded(kept)
        origin, own = known
        return own if own and origin == _origin(account.first) else account.first

    async def set_password(self, account: Account, verifier: Verifier) -> None:
        """Have another password from now on; durable on return.  Raises StoreError: then nothing has changed."""
        kept = _origin(account.first), dict(verifier)
        encoded = msgpack.packb((kept[0], {each.value: text for each, text in verifier.items()}))
        await self._secrets.keep(self._profiles.identity, _name(account.user), encoded)
        self._own[account.user] = kept


def _account(
    mine: Sequence[HanProfile], ever: Sequence[HanProfile], devices: Devices, now: datetime
) -> Account:  # fmt: skip
    """By a user's HAN profiles, those that are valid and all of them."""
    ended = [each for each in ever if each.valid_to is not None and now - CONTRACTS_KEPT < each.valid_to <= now]
    points = {point for each in mine for point in each.metering_points}
    meters = [
        name for each, names in devices if each.metering_point in points for name in names if name is not None
    ]  # fmt: skip
    first: dict[Algorithm, str] = {}
    for each in mine:
        first |= {Algorithm.SHA256: each.ha1_sha256} if each.ha1_sha256 else {}
        first |= {Algorithm.MD5: each.ha1_md5} if each.ha1_md5 else {}
    return Account(
        mine[0].user, _ROLES[mine[0].role], tuple(dict.fromkeys(meters)),
        tuple(map(_contract_of, mine)),
        frozenset(each.certificate for each in mine if each.certificate), first,
        frozenset(facade for each in mine for facade in each.facades), ownership(ever, devices),
        tuple(map(_contract_of, ended)),
    )  # fmt: skip


def _contract_of(profile: HanProfile) -> Contract:
    """What a HAN profile says of a consumer's contract."""
    return Contract(profile.id, profile.metering_points, profile.valid_from, profile.valid_to)


def _name(user: str) -> str:
    return f"user/{user}"


def _origin(first: Verifier) -> bytes:
    text = "".join(f"{each.value}={first.get(each, '')};" for each in Algorithm)
    return hashlib.sha256(b"stromkreis HAN first password\0" + text.encode()).digest()


def _decoded(kept: bytes) -> tuple[bytes, Verifier]:
    origin, texts = msgpack.unpackb(kept)
    return origin, {Algorithm(name): text for name, text in texts.items()}
