"""
The administrator's part in pseudonymous deliveries: whose a message is stays here, what is in it nobody here can read.

A gateway's message is signed by the gateway over content that is encrypted to a market participant.  The administrator
checks the signature, takes it off, puts its own in its place, and passes the encrypted content on.  It could open
nothing; the participant learns that an enrolled gateway sent it, and not which (BSI TR-03109-1; our reading of the
form).  When a message arrives is not hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from coordinator.storage.deliveries import DeliveryRecord, DeliveryRepository, DeliveryState
from protocol import cms
from protocol.cms.enveloped import key_identifier
from protocol.cms.structures import AUTH_ENVELOPED_DATA
from protocol.errors import RemoteProtocolError

MESSAGE_SIZE_MAX: Final = 4 << 20
LIMITS: Final = cms.Limits(message_size=MESSAGE_SIZE_MAX)


class DeliveryRelay:
    """Passes messages on that are for the owner of `recipient`, under the administrator's signature `key`."""

    def __init__(self, deliveries: DeliveryRepository, key: cms.SignatureKey, recipient: x509.Certificate) -> None:
        self._deliveries = deliveries
        self._key = key
        self._recipient = recipient

    def receive(
        self, _gateway_id: str, signers: Sequence[x509.Certificate], delivery_id: str, message: bytes, now_ms: int
    ) -> bool:  # fmt: skip
        """
        Keep a message of a gateway, which signed it with the key of one of `signers`; False for one that is here.

        Raises RemoteProtocolError: `participant_unknown`, what `cms.verify` and `cms.recipients_of` raise.
        """
        if self._deliveries.get(delivery_id) is not None:
            return False
        sealed, _ = cms.verify(message, AUTH_ENVELOPED_DATA, signers, LIMITS)
        if key_identifier(self._recipient) not in cms.recipients_of(sealed, LIMITS):
            raise RemoteProtocolError("participant_unknown", "encrypted to no market participant of this administrator")
        passed_on = cms.sign(sealed, AUTH_ENVELOPED_DATA, self._key, with_certificate=False)
        return self._deliveries.add(
            DeliveryRecord(
                delivery_id, None, DeliveryState.NEW, "", passed_on, None, None, None, None, None, None, None, now_ms
            )
        )
