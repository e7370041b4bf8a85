"""
Roll-out of profile sets: signed by the administrator, encrypted to each gateway, kept until its receipt is here.

A roll-out is a row for each gateway and nothing in memory: whoever asks for it again goes on where it stood.  A version
is one document for good; what a gateway refused is offered again when the same version is rolled out again, and another
document needs a higher version.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from cryptography import x509

from coordinator.gwa.ca import to_pem
from coordinator.gwa.gateway_word import gateway_word
from coordinator.gwa.participants import ParticipantKeys
from coordinator.storage.certificates import CertificateRecord, CertificateRepository
from coordinator.storage.gateways import GatewayRepository, GatewayStatus
from coordinator.storage.profile_sets import ProfileSetRecord, ProfileSetRepository, ProfileSetState
from protocol import cms, pki
from protocol.errors import RemoteProtocolError
from protocol.profiles.firmware import FirmwareOrder
from protocol.profiles.profile_set import PROFILE_SET_SIZE_MAX, ProfileSet
from protocol.profiles.receipt import RECEIPT_SIZE_MAX, Receipt, digest_of
from protocol.profiles.template import ProfileTemplate
from protocol.profiles.tunnel_order import TunnelOrder
from protocol.wakeup import make_wakeup

log = logging.getLogger(__name__)
_COPY_LIMITS = cms.Limits(message_size=2 * PROFILE_SET_SIZE_MAX, content_size=PROFILE_SET_SIZE_MAX)
_RECEIPT_LIMITS = cms.Limits(message_size=4 * RECEIPT_SIZE_MAX, content_size=RECEIPT_SIZE_MAX)


class ProfileRollout:
    """Signs sets with `keys`, whose certificate `sub_ca` has issued, and keeps what gateways say of them."""

    def __init__(
        self, gateways: GatewayRepository, certificates: CertificateRepository, profile_sets: ProfileSetRepository,
        keys: ParticipantKeys, sub_ca: x509.Certificate, entropy: cms.Entropy, initial: ProfileTemplate | None = None,
    ) -> None:  # fmt: skip
        """`initial` makes the sets of gateways that were never given one, when they first ask."""
        self.profile_sets = profile_sets
        self.gateways = gateways
        self.certificates = certificates
        self._keys = keys
        self._entropy = entropy
        self._initial = initial
        self.certificate_chain = to_pem([keys.signature.certificate, sub_ca]).decode()

    def roll_out(self, profiles: ProfileSet, now: datetime) -> ProfileSetRecord:
        """
        Sign a set for its gateway; the same one again is offered again, unless it was taken.

        Raises RemoteProtocolError: `gateway_unknown`, `gateway_revoked`, `profile_version`.
        """
        recipient = self._encryption(profiles.gateway)
        document, newest = profiles.to_bytes(), self.profile_sets.newest(profiles.gateway)
        digest = digest_of(document)
        if newest is not None and newest.version >= profiles.version:
            if (newest.version, newest.digest) != (profiles.version, digest):
                detail = (
                    f"version {newest.version} was rolled out to {profiles.gateway}: give changed profiles a higher"
                )
                raise RemoteProtocolError("profile_version", detail)
            if newest.state is ProfileSetState.TAKEN or (
                newest.state is ProfileSetState.WAITING and newest.encrypted_to == recipient.serial
            ):
                return newest
        record = ProfileSetRecord(
            profiles.gateway, profiles.version, digest,
            self._protect(document, pki.load_certificate(recipient.certificate)), recipient.serial,
            self._protect(document, self._keys.encryption.certificate), ProfileSetState.WAITING, "", None,
            round(now.timestamp() * 1000), None,
        )  # fmt: skip
        self.profile_sets.put(record)
        return record

    def newer(self, versions: Mapping[str, int], now: datetime) -> list[tuple[str, int]]:
        """
        Which of these gateways, by the version that each has, there is a set for, and its version.

        Who has none and was never given one is given the initial one now; who has lost its own along with its keys is
        given it anew, under the new ones.
        """
        new = {gateway for gateway, version in versions.items() if not version}
        given = self.profile_sets.given(new) if new else set()
        for gateway in sorted(new):
            try:
                if gateway in given:
                    self._encrypt_anew(gateway)
                elif self._initial is not None:
                    self.roll_out(self._initial.for_gateway(gateway), now)
            except RemoteProtocolError as error:  # costs the others nothing
                log.warning("gateway %s is offered no profiles: %s", gateway, error)
        return self.profile_sets.newer(versions)

    def message(self, gateway_id: str, version: int) -> bytes:
        """The message of a version.  Raises RemoteProtocolError `profile_unknown`."""
        return self._get(gateway_id, version).message

    def receive(self, gateway_id: str, signed: bytes) -> ProfileSetRecord:
        """
        Believe a receipt that the gateway's key signed.

        Raises RemoteProtocolError: `gateway_unknown`, `profile_unknown`, `bad_receipt`, what `cms.verify` raises.
        """
        content = gateway_word(self.gateways, self.certificates, gateway_id, signed, _RECEIPT_LIMITS)
        receipt = Receipt.from_bytes(content)
        if receipt.gateway != gateway_id:
            raise RemoteProtocolError("bad_receipt", "the receipt is another gateway's")
        record = self._get(gateway_id, receipt.version)
        if receipt.is_taken and receipt.digest != record.digest:
            raise RemoteProtocolError("bad_receipt", "the receipt is for another document")
        if record.answered_ms is not None and receipt.at_ms < record.answered_ms:
            return record  # played again, or overtaken by a later one
        state = ProfileSetState.TAKEN if receipt.is_taken else ProfileSetState.REFUSED
        reason = "" if receipt.is_taken else f"{receipt.reason}: {receipt.detail}"
        self.profile_sets.answer(gateway_id, receipt.version, state, reason, signed, receipt.at_ms)
        return self._get(gateway_id, receipt.version)

    def wake_up(self, gateway_id: str, now: datetime) -> bytes:
        """A wake-up message for a gateway, signed now (BSI TR-03109-1, details, chapter 2)."""
        return make_wakeup(gateway_id, int(now.timestamp()), self._keys.signature)

    def sign_order(self, order: TunnelOrder | FirmwareOrder) -> bytes:
        """The order as its gateway believes it."""
        return order.sign(self._keys.signature)

    def export(self, gateway_id: str) -> bytes:
        """
        The canonical JSON of the newest set of a gateway, from the copy that the administrator can read.

        Raises RemoteProtocolError `profile_unknown`, what `cms.unprotect` raises for a copy under lost keys.
        """
        newest = self.profile_sets.newest(gateway_id)
        if newest is None:
            raise RemoteProtocolError("profile_unknown", f"no profiles were rolled out to {gateway_id}")
        opened = cms.unprotect(
            newest.copy, self._keys.encryption, [self._keys.signature.certificate], limits=_COPY_LIMITS
        )
        return opened.content

    def _protect(self, document: bytes, recipient: x509.Certificate) -> bytes:
        # The certificate goes beside the message: a copy stays readable when it was renewed for the same key.
        return cms.protect(
            document, recipient, self._keys.signature, entropy=self._entropy, compressed=True, with_certificate=False
        )

    def _encrypt_anew(self, gateway_id: str) -> None:
        """Where the newest set is not encrypted to the gateway's present certificate, and it has no other."""
        newest, recipient = self.profile_sets.newest(gateway_id), self._encryption(gateway_id)
        if newest is not None and newest.encrypted_to != recipient.serial:
            message = self._protect(self.export(gateway_id), pki.load_certificate(recipient.certificate))
            waiting = ProfileSetState.WAITING
            self.profile_sets.put(
                replace(newest, message=message, encrypted_to=recipient.serial, state=waiting, reason="", receipt=None,
                        answered_ms=None)
            )  # fmt: skip

    def _get(self, gateway_id: str, version: int) -> ProfileSetRecord:
        record = self.profile_sets.get(gateway_id, version)
        if record is None:
            raise RemoteProtocolError("profile_unknown", f"no profiles of version {version} for {gateway_id}")
        return record

    def _encryption(self, gateway_id: str) -> CertificateRecord:
        gateway = self.gateways.some([gateway_id]).get(gateway_id)
        if gateway is None:
            raise RemoteProtocolError("gateway_unknown", f"no gateway {gateway_id} is enrolled")
        if gateway.status is not GatewayStatus.ACTIVE:
            raise RemoteProtocolError("gateway_revoked", f"gateway {gateway_id} was revoked")
        for each in self.certificates.of_gateway(gateway_id):
            if each.role is pki.Role.GATEWAY_ENCRYPTION:
                return each
        raise RemoteProtocolError("gateway_unknown", f"gateway {gateway_id} has no encryption certificate")
