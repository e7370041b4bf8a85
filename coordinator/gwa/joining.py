"""
What the coordinator checks of a join before it goes into a layout.

Every member checks every other anyway and believes nobody (protocol.dcnet.setup.epoch); but what one of them refuses
ends the ring for all of them, for a whole epoch.  So one gateway's bad signature, key or certificate is turned away
here, where it costs only its sender.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.events import Joined
from coordinator.storage.gateways import GatewayRecord
from protocol import pki, wire
from protocol.dcnet.setup.epoch import call_digest, check_epoch_keys, join_text, registration_grid
from protocol.errors import RemoteProtocolError


def check_join(call: wire.EpochCall, gateway: GatewayRecord, join: wire.Join) -> Joined:
    """
    Return what goes into list and layout if the members of a ring could accept this join; some 0.5 ms.

    Raises RemoteProtocolError: `bad_signature`, `certificate_expired`, what `check_epoch_keys` and
    `pki.load_certificate` raise.
    """
    certificate = pki.load_certificate(gateway.certificate)
    end_s = registration_grid(call).time_s(call.rounds)
    if datetime.fromtimestamp(end_s, UTC) > certificate.not_valid_after_utc:
        raise RemoteProtocolError("certificate_expired", "the gateway's certificate ends before the epoch does")
    check_epoch_keys(join.public_key, join.verify_key)
    keys = join.public_key, gateway.curve_key, join.verify_key
    text = join_text(call_digest(call), gateway.gateway_id, *keys, join.nonce, join.commitment)
    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(join.signature, text, ec.ECDSA(pki.signature_hash(key)))
    except InvalidSignature as error:
        raise RemoteProtocolError("bad_signature", "a join that its gateway's key did not sign") from error
    return Joined(join.try_, join.commitment, text, *keys, join.nonce, join.signature, gateway.certificate)
