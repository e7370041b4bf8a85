"""
SM-PKI certificates: who may certify whom, and what a certificate must look like to be believed.

The smart metering PKI is a tree of three levels: one root, sub-CAs below it, end entities (gateways, gateway
administrators, market participants) below those, each with a triple of certificates: signature, encryption, TLS.  Every
gateway checks the epoch keys of its ring neighbours against the root it carries, so that not even the coordinator can
slip a key of its own into a ring.

A gateway comes from its manufacturer with a triple of quality-seal certificates (Gütesiegelzertifikate), from a sub-CA
that is the manufacturer's; with them it asks the administrator for operational ones.  Both have the same profile.  Our
reading, in one place (`profiles.py`): the organisational unit tells them apart, `<manufacturer>.GWH` or
`<administrator>.GWA`, and neither stands where the other is wanted.

The check is written out here instead of taken from `cryptography.x509.verification`: that module permits the
algorithms of the web PKI only, without a way to add brainpool curves (pyca/cryptography issue 13391), and it
wants a DNS name where the SM-PKI names a device.  In return the rules can be narrower than RFC 5280: a profile
states the exact key usage, and anything else is refused, with the clause.

Names follow annex A of the SM-PKI certificate policy (`<id>.SMGW`, `<org>.GWA`, `<org>.EMT`, `<org>.CA`), profiles
BSI TR-03109-4, curves and hashes BSI TR-03116-3, gateway ids DIN 43863-5.  The organisation says that this is no
certificate of the German production PKI.  Certificates of the home network are `han.py`'s (chapter 4 of the detailed
specifications), those of the meters' network `node.lmn.hdlc.certificate`'s (chapter 3).
"""

from protocol.pki.bundle import load_revocation_bundle
from protocol.pki.chain import Verified, load_certificate, to_der, verify_chain
from protocol.pki.issuing import SERIAL_BITS_MIN, issue
from protocol.pki.names import gateway_id, is_gateway_id, make_gateway_id, subject
from protocol.pki.profiles import (
    ADMINISTRATOR_TRIPLE,
    CERTIFICATE_SIZE_MAX,
    CLAUSES,
    COUNTRY,
    CURVE,
    CURVES,
    GATEWAY_TRIPLE,
    INTERMEDIATE_COUNT_MAX,
    ORGANISATION,
    PARTICIPANT_TRIPLE,
    PROFILES,
    SEAL_TRIPLE,
    Profile,
    Role,
    signature_hash,
)
from protocol.pki.requests import SigningRequest, build_package, build_request, check_package, check_request
from protocol.pki.revocation import (
    LISTS_SIZE_MAX,
    RevocationList,
    RevocationLists,
    issue_revocation_list,
    load_revocation_lists,
)

__all__ = [
    "ADMINISTRATOR_TRIPLE",
    "CERTIFICATE_SIZE_MAX",
    "CLAUSES",
    "COUNTRY",
    "CURVE",
    "CURVES",
    "GATEWAY_TRIPLE",
    "INTERMEDIATE_COUNT_MAX",
    "LISTS_SIZE_MAX",
    "ORGANISATION",
    "PARTICIPANT_TRIPLE",
    "PROFILES",
    "SEAL_TRIPLE",
    "SERIAL_BITS_MIN",
    "Profile",
    "RevocationList",
    "RevocationLists",
    "Role",
    "SigningRequest",
    "Verified",
    "build_package",
    "build_request",
    "check_package",
    "check_request",
    "gateway_id",
    "is_gateway_id",
    "issue",
    "issue_revocation_list",
    "load_certificate",
    "load_revocation_bundle",
    "load_revocation_lists",
    "make_gateway_id",
    "signature_hash",
    "subject",
    "to_der",
    "verify_chain",
]
