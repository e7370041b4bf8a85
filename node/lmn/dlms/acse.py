"""
Opening and closing an application association (ACSE, IEC 62056-5-3 clause 9.3 and 11; BER after ISO/IEC 8825-1).

The four APDUs are BER, unlike everything else in DLMS, and short; the codec here knows the handful of components
that COSEM uses and passes over the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from node.lmn.dlms.axdr import Reader, encode_length
from protocol.errors import RemoteProtocolError

AARQ, AARE, RLRQ, RLRE = 0x60, 0x61, 0x62, 0x63
_COSEM: Final = b"\x60\x85\x74\x05\x08"  # 2.16.756.5.8, the object identifier of the DLMS UA
_ACSE_REQUIREMENTS: Final = b"\x07\x80"


class Context(IntEnum):
    """Application context names."""

    LOGICAL_NAME = 1
    SHORT_NAME = 2
    LOGICAL_NAME_CIPHERED = 3
    SHORT_NAME_CIPHERED = 4


class Mechanism(IntEnum):
    """Authentication mechanisms: none, password (LLS), challenge with GMAC (HLS)."""

    NONE = 0
    LLS = 1
    HLS = 2
    HLS_MD5 = 3
    HLS_SHA1 = 4
    HLS_GMAC = 5
    HLS_SHA256 = 6
    HLS_ECDSA = 7


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """AARQ: who calls, how it proves itself, and the (perhaps ciphered) InitiateRequest in `user_information`."""

    context: int
    mechanism: int = Mechanism.NONE
    system_title: bytes = b""
    authentication: bytes = field(default=b"", repr=False)
    user_information: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> bytes:
        """BER."""
        body = _tlv(0xA1, _tlv(0x06, _COSEM + bytes((1, self.context))))
        if self.system_title:
            body += _tlv(0xA6, _tlv(0x04, self.system_title))
        if self.mechanism != Mechanism.NONE:
            body += _tlv(0x8A, _ACSE_REQUIREMENTS)
            body += _tlv(0x8B, _COSEM + bytes((2, self.mechanism)))
            body += _tlv(0xAC, _tlv(0x80, self.authentication))
        return _tlv(AARQ, body + _user_information(self.user_information))

    @classmethod
    def from_bytes(cls, data: bytes) -> AssociationRequest:
        """Raises RemoteProtocolError."""
        part = _components(data, AARQ)
        return cls(
            _name(part, 0xA1, 1),
            _name(part, 0x8B, 2) if 0x8B in part else Mechanism.NONE,
            _inner(part, 0xA6),
            _inner(part, 0xAC),
            _inner(part, 0xBE),
        )


_DIAGNOSTICS: Final = {
    1: "no reason given", 2: "application context not supported", 3: "system title of the client not recognised",
    11: "another authentication mechanism is wanted", 12: "authentication mechanism missing",
    13: "authentication failure, a wrong password or key", 14: "authentication required",
}  # fmt: skip
"""Of the ACSE service user, IEC 62056-5-3."""


@dataclass(frozen=True, slots=True)
class AssociationResponse:
    """AARE: `result` 0 accepted, 1 and 2 rejected; `diagnostic` 14 means that HLS has yet to be completed."""

    context: int
    result: int
    diagnostic: int
    mechanism: int = Mechanism.NONE
    system_title: bytes = b""
    authentication: bytes = b""
    user_information: bytes = b""
    diagnostic_of_provider: bool = False

    def to_bytes(self) -> bytes:
        """BER."""
        body = _tlv(0xA1, _tlv(0x06, _COSEM + bytes((1, self.context))))
        body += _tlv(0xA2, _tlv(0x02, bytes((self.result,))))
        source = 0xA2 if self.diagnostic_of_provider else 0xA1
        body += _tlv(0xA3, _tlv(source, _tlv(0x02, bytes((self.diagnostic,)))))
        if self.system_title:
            body += _tlv(0xA4, _tlv(0x04, self.system_title))
        if self.mechanism != Mechanism.NONE:
            body += _tlv(0x88, _ACSE_REQUIREMENTS)
            body += _tlv(0x89, _COSEM + bytes((2, self.mechanism)))
            if self.authentication:
                body += _tlv(0xAA, _tlv(0x80, self.authentication))
        return _tlv(AARE, body + _user_information(self.user_information))

    @property
    def refusal(self) -> str:
        """Why the meter does not want the association, in words."""
        kind = {1: "for good", 2: "for now"}.get(self.result, f"result {self.result}")
        known = {} if self.diagnostic_of_provider else _DIAGNOSTICS
        return f"refused {kind}: {known.get(self.diagnostic, 'diagnostic')} ({self.diagnostic})"

    @classmethod
    def from_bytes(cls, data: bytes) -> AssociationResponse:
        """Raises RemoteProtocolError."""
        part = _components(data, AARE)
        source, diagnostic = _choice(part.get(0xA3, b""))
        return cls(
            _name(part, 0xA1, 1),
            _integer(_inner(part, 0xA2)),
            _integer(_choice(diagnostic)[1]),
            _name(part, 0x89, 2) if 0x89 in part else Mechanism.NONE,
            _inner(part, 0xA4),
            _inner(part, 0xAA),
            _inner(part, 0xBE),
            source == 0xA2,
        )


@dataclass(frozen=True, slots=True)
class Release:
    """RLRQ and RLRE: `reason` 0 normal."""

    tag: int
    reason: int | None = 0
    user_information: bytes = b""

    def to_bytes(self) -> bytes:
        """BER."""
        reason = b"" if self.reason is None else _tlv(0x80, bytes((self.reason,)))
        return _tlv(self.tag, reason + _user_information(self.user_information))

    @classmethod
    def from_bytes(cls, data: bytes) -> Release:
        """Raises RemoteProtocolError."""
        tag = data[0] if data[:1] in (b"\x62", b"\x63") else RLRQ
        part = _components(data, tag)
        return cls(tag, _integer(part[0x80]) if 0x80 in part else None, _inner(part, 0xBE))


def _tlv(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + encode_length(len(content)) + content


def _user_information(content: bytes) -> bytes:
    return _tlv(0xBE, _tlv(0x04, content)) if content else b""


def _components(data: bytes, tag: int) -> dict[int, bytes]:
    outer = Reader(data)
    if outer.byte() != tag:
        raise RemoteProtocolError("dlms_acse", "another APDU than expected", offset=0)
    reader = Reader(outer.octets())
    outer.end()
    found: dict[int, bytes] = {}
    while reader.remaining:
        key = reader.byte()
        if key in found:
            raise reader.error("dlms_acse", "a component comes twice")
        found[key] = reader.octets()
    return found


def _choice(data: bytes) -> tuple[int, bytes]:
    reader = Reader(data)
    tag = reader.byte()
    content = reader.octets()
    reader.end()
    return tag, content


def _inner(part: dict[int, bytes], tag: int) -> bytes:
    return _choice(part[tag])[1] if tag in part else b""


def _integer(content: bytes) -> int:
    if len(content) != 1:
        raise RemoteProtocolError("dlms_acse", "an integer of one byte was expected")
    return content[0]


def _name(part: dict[int, bytes], tag: int, arc: int) -> int:
    """The last arc of 2.16.756.5.8.`arc`.x; only the context name has a tag of its own inside."""
    content = part.get(tag, b"")
    if arc == 1:
        content = _choice(content)[1]
    if len(content) != 7 or content[:5] != _COSEM or content[5] != arc:
        raise RemoteProtocolError("dlms_acse", "a name outside the DLMS UA's")
    return content[6]
