"""
A gateway that leaves for good, because it is decommissioned or its household moves: revoked by its own word.

It says so itself, signed by its signature key, once it owes nobody anything: its epochs are over, its last contribution
is settled.  Then it is revoked as by the administrator, and besides has left: its id is never given out again, and who
shows it later, to enrol, is informed.  An answer can be lost on its way, and a gateway may be killed before it has
written the answer down, so the same statement is answered again, with the time of the first.
"""

from __future__ import annotations

from datetime import datetime

from coordinator.gwa.enrolment import Directory
from coordinator.storage.certificates import CertificateRepository
from coordinator.storage.gateways import GatewayRepository
from protocol import cms, pki
from protocol.errors import RemoteProtocolError
from protocol.leave import leave_statement


class Leaving:
    """Answers gateways that leave."""

    def __init__(self, gateways: GatewayRepository, certificates: CertificateRepository, directory: Directory) -> None:
        self._gateways = gateways
        self._certificates = certificates
        self._directory = directory

    def leave(self, gateway_id: str, endorsement: bytes, now: datetime) -> int:
        """
        Have a gateway left; since when it has, Unix time in ms.

        `endorsement` is a detached CMS signature over `leave_statement` by one of the gateway's signature keys.
        Raises RemoteProtocolError: `gateway_unknown`, `gateway_released` (others may have its id), what
        `cms.verify_detached` raises.
        """
        gateway = self._gateways.some([gateway_id]).get(gateway_id)
        if gateway is None:
            raise RemoteProtocolError("gateway_unknown", "no gateway of this id is enrolled")
        mine = self._certificates.signers(gateway_id, gateway.enrolled_ms)
        signers = [pki.load_certificate(each.certificate) for each in mine]
        cms.verify_detached(endorsement, leave_statement(gateway_id), signers, cms.Limits())
        left_ms = self._directory.leave(gateway_id, now)
        if left_ms is None:
            raise RemoteProtocolError("gateway_released", "the id of this gateway was released for other keys")
        return left_ms
