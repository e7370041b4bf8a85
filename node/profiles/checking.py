"""
What a profile set must be before anything of it counts on this gateway.

It comes as a CMS message of the administrator: signed by its signature key, encrypted to this gateway.  Which
administrator that is stands in the gateway's own certificate (SM-PKI certificate policy, annex A: the organisational
unit).  Then the set must be for this gateway, fit together (protocol.profiles), name meters that are here, and bring
the certificates that deliveries are encrypted to.  What fails raises RemoteProtocolError, and nothing is changed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from node.security.module import SecurityModule
from node.trust import TrustStore
from protocol import cms, pki
from protocol.cms.enveloped import key_identifier
from protocol.cms.structures import AUTH_ENVELOPED_DATA
from protocol.errors import RemoteProtocolError
from protocol.profiles.communication import WanProfile
from protocol.profiles.processing import Delivery
from protocol.profiles.profile_set import PROFILE_SET_SIZE_MAX, ProfileSet

_LIMITS = cms.Limits(message_size=2 * PROFILE_SET_SIZE_MAX, content_size=PROFILE_SET_SIZE_MAX)
_ABOVE_MAX = 4  # certificates between one and the root that `pki.verify_chain` looks at


def administrator_of(module: SecurityModule) -> str:
    """
    The common name of the administrator whom the gateway's signature certificate names.

    Raises RemoteProtocolError `no_administrator` before enrolment, or where the certificate names none.
    """
    if module.certificate is not None:
        subject = pki.load_certificate(module.certificate).subject
        for each in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME):
            return str(each.value)
    raise RemoteProtocolError("no_administrator", "the gateway's certificate names no administrator")


def open_message(
    message: bytes, certificate: bytes, intermediates: Sequence[bytes], module: SecurityModule, trust: TrustStore
) -> bytes:
    """
    The document of a message, of this gateway's administrator and for this gateway alone.

    `certificate` (DER) is what the message says that it was signed by.  Raises RemoteProtocolError: what
    `TrustStore.administrator` and `cms.unprotect` raise, `no_encryption_key`.
    """
    signer = trust.administrator(administrator_of(module), certificate, intermediates)
    sealed, _ = cms.verify(message, AUTH_ENVELOPED_DATA, [signer], _LIMITS)
    wanted = cms.recipients_of(sealed, _LIMITS)
    for key in module.encryption_keys:
        if key_identifier(key.certificate) in wanted:
            return cms.unprotect(message, key, [signer], limits=_LIMITS).content
    raise RemoteProtocolError("no_encryption_key", "encrypted to a certificate that the gateway has not, or no more")


def check_set(
    document: bytes, identity: str, meters: Mapping[str, str], intermediates: Sequence[bytes], trust: TrustStore
) -> ProfileSet:
    """
    The set, where it may be in force on the gateway `identity`.

    `meters` are the gateway's, by every name that a profile may call them.  Raises RemoteProtocolError: `bad_profile`,
    `wrong_gateway`, `unknown_meter`, `no_administrator`, `certificate_missing`, what `TrustStore.participant` raises.
    """
    profiles = ProfileSet.from_bytes(document)
    if profiles.gateway != identity:
        raise RemoteProtocolError("wrong_gateway", "the set is for another gateway")
    devices = {each.id: each.device for each in profiles.meters}
    for processing in profiles.processing:
        if devices[processing.meters[-1].meter] not in meters:
            detail = f"processing {processing.id}: meter {processing.meters[-1].meter} is none of this gateway"
            raise RemoteProtocolError("unknown_meter", detail)
    if any(each.delivery is Delivery.PSEUDONYMOUS for one in profiles.processing for each in one.recipients):
        administrator_profile(profiles)
    for recipient in sorted(named_recipients(profiles)):
        encryption_certificate(profiles, recipient, intermediates, trust)
    return profiles


def named_recipients(profiles: ProfileSet) -> set[str]:
    """The WAN profiles to which single values are delivered."""
    return {
        each.communication
        for processing in profiles.processing
        for each in processing.recipients
        if each.delivery is not Delivery.AGGREGATED
    }


def wan_profile(profiles: ProfileSet, communication: str) -> WanProfile:
    """A WAN profile of the set, by its id, which the set was checked to have."""
    return next(each for each in profiles.wan if each.id == communication)


def administrator_profile(profiles: ProfileSet) -> WanProfile:
    """
    The WAN profile of the administrator, who passes pseudonymous deliveries on.

    Raises RemoteProtocolError `no_administrator` where there is none.
    """
    for each in profiles.wan:
        if each.role == "administrator":
            return each
    raise RemoteProtocolError("no_administrator", "pseudonymous delivery needs a WAN profile of role administrator")


def encryption_certificate(
    profiles: ProfileSet, communication: str, intermediates: Sequence[bytes], trust: TrustStore
) -> x509.Certificate:
    """
    The certificate that deliveries under a WAN profile are encrypted to: the one of its fingerprint, valid now.

    Raises RemoteProtocolError `certificate_missing`, what `TrustStore.participant` raises.
    """
    wanted = wan_profile(profiles, communication).encryption_certificate
    known = [der_of(each) for each in profiles.certificates]
    authorities = [each for each in known if _is_authority(pki.load_certificate(each))]
    for der in known:
        if hashlib.sha256(der).hexdigest() == wanted:
            return trust.participant(der, [*intermediates, *authorities][:_ABOVE_MAX], pki.Role.PARTICIPANT_ENCRYPTION)
    detail = f"wan {communication}: no certificate of the set has the fingerprint of its encryption_certificate"
    raise RemoteProtocolError("certificate_missing", detail)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def der_of(text: str) -> bytes:
    """Inverse of `text_of`, as DER.  Raises RemoteProtocolError `bad_profile`."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise RemoteProtocolError("bad_profile", "certificates: expected DER in base64") from None


def text_of(certificate: x509.Certificate) -> str:
    """A certificate as `ProfileSet.certificates` has it."""
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
