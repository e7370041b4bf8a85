"""Distinguished names of annex A of the SM-PKI certificate policy, and gateway ids of DIN 43863-5."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.x509.oid import NameOID

from protocol.errors import LocalProtocolError
from protocol.pki.profiles import COUNTRY, ORGANISATION, Profile, refusal

_GATEWAY_ID = re.compile(r"E[A-Z]{3}[0-9A-F]{2}[0-9]{8}")
_MANUFACTURER = ".GWH"


def make_gateway_id(number: int, *, manufacturer: str = "STK", block: int = 1) -> str:
    """
    The cross-manufacturer device id of DIN 43863-5 with medium `E`: 14 characters such as `ESTK0100000001`.

    Raises LocalProtocolError where a part does not fit its field.
    """
    if not 0 <= number < 10**8 or not 0 <= block < 256:
        raise LocalProtocolError("a gateway id has a production number below 10^8 and a block below 256")
    text = f"E{manufacturer}{block:02X}{number:08d}"
    if not is_gateway_id(text):
        raise LocalProtocolError("the manufacturer of a gateway id is three capital letters")
    return text


def is_gateway_id(text: str) -> bool:
    """Whether this is a gateway's device id (DIN 43863-5, medium `E`), in capitals."""
    return _GATEWAY_ID.fullmatch(text) is not None


def gateway_id(certificate: x509.Certificate) -> str:
    """
    The id of the gateway that a certificate names, in capitals.

    Raises RemoteProtocolError `certificate_name` where the common name is not `<id>.SMGW`.
    """
    return gateway_of(common_name(certificate.subject))


def subject(common_name: str, *, unit: str | None = None, sequence: int = 1) -> x509.Name:
    """
    The distinguished name of annex A of the SM-PKI certificate policy.

    `unit` is the responsible gateway administrator (`<name>.GWA`) for gateways, for a quality seal the manufacturer
    (`<name>.GWH`), `sequence` the certificate's running number.
    """
    attributes = [
        x509.NameAttribute(NameOID.COUNTRY_NAME, COUNTRY),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, str(sequence)),
    ]
    if unit is not None:
        attributes.insert(2, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(attributes)


def common_name(name: x509.Name) -> str:
    """The one common name.  Raises RemoteProtocolError `certificate_name` for none or several."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1 or not isinstance(found[0].value, str):
        raise refusal("certificate_name", "expected exactly one common name")
    return found[0].value


def gateway_of(common_name: str) -> str:
    """The id in `<id>.SMGW`, in capitals.  Raises RemoteProtocolError `certificate_name`."""
    device, dot, scheme = common_name.upper().partition(".")
    if (dot, scheme) != (".", "SMGW") or not is_gateway_id(device):
        raise refusal("certificate_name", "expected the common name <gateway id>.SMGW")
    return device


def check_name(name: x509.Name, profile: Profile) -> str:
    """
    The common name of a subject that fits the profile.

    Raises RemoteProtocolError `certificate_name`.
    """
    found = common_name(name)
    if not found.upper().endswith(profile.name_suffix):
        raise refusal("certificate_name", f"expected the common name <id>{profile.name_suffix}")
    if profile.sealed is not None:
        gateway_of(found)
        if _is_sealed(name) is not profile.sealed:
            unit = f"<manufacturer>{_MANUFACTURER}" if profile.sealed else "the gateway administrator"
            raise refusal("certificate_name", f"expected {unit} as organisational unit")
    return found


def _is_sealed(name: x509.Name) -> bool:
    units = name.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return any(str(unit.value).upper().endswith(_MANUFACTURER) for unit in units)
