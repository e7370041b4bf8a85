"""What a coordinator publishes for revocation: its sub-CAs' certificates and every CA's list, in PEM."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography import x509

from protocol.pki.chain import verify_chain
from protocol.pki.profiles import MALFORMED, Role, refusal
from protocol.pki.revocation import LISTS_SIZE_MAX, RevocationList, load_revocation_lists

_AUTHORITIES_MAX: Final = 8
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"


def load_revocation_bundle(pem: bytes, root: x509.Certificate, now: datetime) -> list[RevocationList]:
    """
    The lists of the root and of the sub-CAs whose certificates are there and lead to it.

    Raises RemoteProtocolError: what `verify_chain` and `load_revocation_lists` raise.
    """
    if len(pem) > LISTS_SIZE_MAX or pem.count(_CERTIFICATE) > _AUTHORITIES_MAX:
        raise refusal("revocation_malformed", "more than a bundle has")
    try:
        authorities = x509.load_pem_x509_certificates(pem) if _CERTIFICATE in pem else []
    except MALFORMED as error:
        raise refusal("revocation_malformed", "not certificates in PEM") from error
    for each in authorities:
        verify_chain(each, (), root, now, role=Role.SUB_CA)
    return load_revocation_lists(pem, [root, *authorities])
