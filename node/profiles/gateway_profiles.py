"""
The profile set that is in force on one gateway, from the message of the administrator to the store and back.

A set is taken whole or not at all: checked first (`checking`), then durable, then in force.  Versions only go up, also
over restarts, so that nobody brings an old set back.  What is stored and does not open, or does not fit this release,
is not in force, and no other set is in its place: the gateway then measures and delivers nothing by profiles until the
administrator sends the next version.  Nor is one in force that is older than the keys know of: the store was put back
to an earlier state, and the administrator is asked for what came since.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import trio
from cryptography import x509

from node.profiles.checking import administrator_of, check_set, open_message
from node.security.module import SecurityModule
from node.storage.errors import SealError, StoreError
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.trust import TrustStore
from protocol import cms
from protocol.cms.structures import DATA
from protocol.errors import RemoteProtocolError
from protocol.logs.events import Event, Parameter
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.profile_set import ProfileSet
from protocol.profiles.query import QueryProof, query_text
from protocol.profiles.receipt import Receipt, digest_of

log = logging.getLogger(__name__)
_NO_DIGEST = "0" * 64
_DIGEST_SHOWN = 16


class Note(Protocol):
    """Notes an event in the gateway's logs (`node.logs.gateway_log.GatewayLog.note`)."""

    def __call__(self, event: Event, **parameters: Parameter) -> None: ...  # noqa: D102


class GatewayProfiles:
    """
    One gateway's.

    `meters` are the names under which its readings are logged, by every name that a profile may call a meter: its place
    (`ESTK0100000001/0`), and its own id where the configuration has it.
    """

    __slots__ = (
        "_changed", "_clock", "_current", "_is_closed", "_meters", "_module", "_note", "_proof", "_repository",
        "_trust", "asked", "version",
    )  # fmt: skip

    def __init__(
        self, repository: ProfileSetRepository, module: SecurityModule, trust: TrustStore, meters: Mapping[str, str],
        note: Note, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """
        Read the set that was in force; `clock` is real time (Unix, s).

        Raises StoreError where the store cannot be read.
        """
        self._repository = repository
        self._module = module
        self._trust = trust
        self._meters = meters
        self._note = note
        self._clock = clock
        self._is_closed = False
        self._changed = trio.Event()
        self.asked = trio.Event()
        """Set once the administrator was asked since the start, and what it has was looked at."""
        self._proof: tuple[bytes | None, QueryProof] | None = None
        self.version = repository.newest_version(module.identity)
        self._current = self._stored() if self.version and not self._is_behind else None
        if self._is_behind:
            log.warning(
                "gateway %s: its store has profiles of version %d, its keys had version %d: none are in force until"
                " the administrator has sent these", self.identity, self.version, module.profiles_version,
            )  # fmt: skip

    @property
    def current(self) -> ProfileSet | None:
        """The set in force, None before the first and where the stored one does not hold."""
        return self._current

    @property
    def newest_version(self) -> int:
        """That of the newest set that was ever taken, 0 before the first; `version` is the store's."""
        return max(self.version, self._module.profiles_version)

    @property
    def _is_behind(self) -> bool:
        return self.version < self._module.profiles_version

    @property
    def changed(self) -> trio.Event:
        """Set when the next set is in force."""
        return self._changed

    @property
    def identity(self) -> str:
        """The gateway's id."""
        return self._module.identity

    @property
    def signature_key(self) -> cms.SignatureKey:
        """What the gateway's receipts are signed with.  Raises LocalProtocolError before enrolment."""
        return self._module.signature_key

    def close(self) -> None:
        """Take none any more: the gateway has stopped, and may be deleted."""
        self._is_closed = True

    def query_proof(self) -> str:
        """That it is this gateway who asks the administrator; made anew every half hour, and after a renewal."""
        now_ms, certificate = self._now_ms(), self._module.certificate
        if self._proof is None or self._proof[0] != certificate or self._proof[1].is_due(now_ms):
            signature = self._module.sign(query_text(self.identity, now_ms))
            self._proof = certificate, QueryProof(now_ms, signature)
        return str(self._proof[1])

    def administrator(self, certificate: bytes, intermediates: Sequence[bytes]) -> x509.Certificate:
        """The certificate (DER), where it is this gateway's administrator's.  Raises RemoteProtocolError."""
        return self._trust.administrator(administrator_of(self._module), certificate, intermediates)

    def administrators_word(self, message: bytes, chain: Sequence[bytes], limits: cms.Limits) -> bytes:
        """
        What the administrator has signed (CMS SignedData) by the first certificate of `chain`, which the others issued.

        Raises RemoteProtocolError.
        """
        if not chain:
            raise RemoteProtocolError("administrator_unknown", "no certificate of the administrator beside it")
        content, _ = cms.verify(message, DATA, [self.administrator(chain[0], chain[1:])], limits)
        return content

    def processing(self, moment: datetime) -> list[ProcessingProfile]:
        """The processing profiles that are valid at a moment."""
        return [] if self._current is None else [each for each in self._current.processing if each.is_valid_at(moment)]

    def devices_of(self, profile: ProcessingProfile) -> list[str | None]:
        """The names in the metering log of a profile's meters, in its order; None is one that is not here any more."""
        if self._current is None:
            return [None] * len(profile.meters)
        devices = {each.id: each.device for each in self._current.meters}
        return [self._meters.get(devices[each.meter]) for each in profile.meters]

    async def take(
        self, version: int, message: bytes, certificate: bytes, intermediates: Sequence[bytes]
    ) -> bytes:  # fmt: skip
        """
        Take a message of the administrator, and return the signed receipt: taken, or refused with the reason.

        `version` is the one that it was announced as, for the receipt of what cannot be opened.  Durable before the
        receipt is made.  Raises StoreError, OSError: then nothing has changed, and there is no receipt.
        """
        digest = _NO_DIGEST
        try:
            document = open_message(message, certificate, intermediates, self._module, self._trust)
            digest = digest_of(document)
            profiles = check_set(document, self.identity, self._meters, self._module.intermediates, self._trust)
            if profiles.version != version:
                raise RemoteProtocolError("wrong_version", f"announced as version {version}, it is {profiles.version}")
            is_known = self._is_in_force(profiles)
        except RemoteProtocolError as error:
            log.warning("gateway %s refuses profiles of version %d: %s", self.identity, version, error)
            self._note(Event.PROFILES_REFUSED, version=version, reason=error.reason)
            return Receipt.refused(self.identity, version, digest, self._now_ms(), error).sign(
                self._module.signature_key
            )
        if self._is_closed:
            raise StoreError(f"gateway {self.identity} has stopped and takes no profiles")
        if not is_known:
            self._module.note_profiles(version)
            await self._repository.store.write(self._repository.add(self.identity, version, document))
            self.version, self._current = version, profiles
            self._note(Event.PROFILES_TAKEN, version=version, digest=digest[:_DIGEST_SHOWN])
            self._changed.set()
            self._changed = trio.Event()
        receipt = Receipt(gateway=self.identity, version=version, digest=digest, is_taken=True, at_ms=self._now_ms())
        return receipt.sign(self._module.signature_key)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _is_in_force(self, profiles: ProfileSet) -> bool:
        """Whether exactly this set is.  Raises RemoteProtocolError `old_version` for any other that is not newer."""
        if profiles.version > self.version and profiles.version >= self._module.profiles_version:
            return False
        if profiles == self._current:  # its receipt was lost
            return True
        detail = f"version {profiles.version}, and {self.newest_version} was in force already"
        raise RemoteProtocolError("old_version", detail)

    def _stored(self) -> ProfileSet | None:
        try:
            document = self._repository.document(self.identity, self.version)
            if document is None:
                raise RemoteProtocolError("bad_profile", "the set was deleted while it was read")
            return ProfileSet.from_bytes(document)
        except (SealError, RemoteProtocolError) as error:
            log.error(
                "gateway %s: its profiles of version %d do not hold and are not in force, it waits for the next: %s",
                self.identity, self.version, error,
            )  # fmt: skip
            return None
