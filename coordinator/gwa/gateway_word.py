"""What a gateway says under its own signature, such as a receipt: believed by its certificates alone."""

from __future__ import annotations

from coordinator.storage.certificates import CertificateRepository
from coordinator.storage.gateways import GatewayRepository
from protocol import cms, pki
from protocol.cms.structures import DATA
from protocol.errors import RemoteProtocolError


def gateway_word(
    gateways: GatewayRepository, certificates: CertificateRepository, gateway_id: str, signed: bytes, limits: cms.Limits
) -> bytes:
    """
    The content of a message (CMS SignedData) that an enrolled gateway's key signed.

    Raises RemoteProtocolError: `gateway_unknown`, what `cms.verify` raises.
    """
    gateway = gateways.some([gateway_id]).get(gateway_id)
    if gateway is None:
        raise RemoteProtocolError("gateway_unknown", "no gateway of this id is enrolled")
    signers = certificates.signers(gateway_id, gateway.enrolled_ms)
    loaded = [pki.load_certificate(each.certificate) for each in signers]
    return cms.verify(signed, DATA, loaded, limits)[0]
