"""
The headers between the link address and the records: extended link layer, fragmentation layer, transport layer.

Only reading of fields, no keys.  Sizes and orders: EN 13757-4 clause 13 (ELL), EN 13757-7 clauses 6 (AFL) and 7 (TPL),
OMS volume 2; the layout of mode 10's configuration (two octets of extension, optional key version, message counter)
as real meters send it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from node.lmn.mbus.application import TransportHeader, take_long_header, take_short_header
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.security import CMAC_SIZES, MODE_7, MODE_10
from protocol.errors import RemoteProtocolError

CI_AFL: Final = 0x90
_ELL_SIZES: Final = {0x8C: 2, 0x8D: 8, 0x8E: 10, 0x8F: 16}

# CI field -> (header: "long", "short" or "none", what follows).
RECORDS, COMPACT, NO_DATA, ERROR, ALARM = "records", "compact", "no data", "error", "alarm"
TRANSPORT: Final = {
    0x72: ("long", RECORDS), 0x7A: ("short", RECORDS), 0x78: ("none", RECORDS),
    0x73: ("long", COMPACT), 0x7B: ("short", COMPACT), 0x79: ("none", COMPACT),
    0x80: ("long", NO_DATA), 0x8B: ("long", NO_DATA), 0x8A: ("short", NO_DATA),
    0x6F: ("long", ERROR), 0x6E: ("short", ERROR), 0x70: ("none", ERROR),
    0x75: ("long", ALARM), 0x74: ("short", ALARM), 0x71: ("none", ALARM),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExtendedLink:
    """
    ELL: communication control, access number, the receiver's address if it has one.

    `session` is the session number in wire order and `crc` the payload's, both only in the variants that encrypt.
    """

    communication: int
    access: int
    receiver: DeviceAddress | None
    session: bytes | None

    @property
    def encrypted(self) -> bool:
        """Whether the session number's top three bits announce AES-CTR."""
        return self.session is not None and self.session[3] >> 5 == 1

    @property
    def bidirectional(self) -> bool:
        """B bit: the meter listens after it has sent."""
        return bool(self.communication & 0x80)


def take_extended_link(data: bytes) -> tuple[ExtendedLink, bytes]:
    """
    The ELL that starts with its CI, and what follows: for the encrypting variants from the payload CRC on.

    Raises RemoteProtocolError where it is cut off.
    """
    size = _ELL_SIZES[data[0]]
    if len(data) < 1 + size:
        raise RemoteProtocolError("ell_truncated", "the extended link layer is cut off", offset=0)
    receiver = DeviceAddress.from_link(data[3:11]) if data[0] in (0x8E, 0x8F) else None
    position = 11 if receiver else 3
    session = data[position : position + 4] if data[0] in (0x8D, 0x8F) else None
    return ExtendedLink(data[1], data[2], receiver, session), data[position + (4 if session else 0) :]


def is_extended_link(ci: int) -> bool:
    """Whether a CI field opens an extended link layer that we read."""
    return ci in _ELL_SIZES


@dataclass(frozen=True, slots=True)
class Fragment:
    """
    One AFL header and its fragment.

    `authenticated` are the header octets that go before the payload into the MAC: MCL, KI, MCR, ML, as far as there.
    """

    number: int
    more: bool
    message_control: int | None
    counter: bytes | None
    mac: bytes | None
    length: int | None
    authenticated: bytes
    payload: bytes


def take_fragment(data: bytes) -> Fragment:
    """AFL: length, fragment control, then the fields it announces.  Raises RemoteProtocolError where it is cut off."""
    if len(data) < 4 or len(data) < 2 + data[1] or data[1] < 2:
        raise RemoteProtocolError("afl_truncated", "the fragmentation layer is cut off", offset=0)
    header, payload = data[2 : 2 + data[1]], data[2 + data[1] :]
    control = header[0] | header[1] << 8
    position = 2

    def take(size: int) -> bytes:
        nonlocal position
        if position + size > len(header):
            raise RemoteProtocolError("afl_truncated", "fields announced that are not there", offset=position)
        position += size
        return header[position - size : position]

    message_control = take(1) if control & 0x2000 else None
    key_information = take(2) if control & 0x0200 else b""
    counter = take(4) if control & 0x0800 else None
    mac = None
    if control & 0x0400:
        size = CMAC_SIZES.get(message_control[0] & 0x0F) if message_control else len(header) - position - (
            2 if control & 0x1000 else 0
        )  # fmt: skip
        if not size:
            raise RemoteProtocolError("afl_authentication_type", "no AES-CMAC")
        mac = take(size)
    length = take(2) if control & 0x1000 else None
    authenticated = (message_control or b"") + key_information + (counter or b"") + (length or b"")
    return Fragment(
        control & 0xFF, bool(control & 0x4000), message_control[0] if message_control else None, counter, mac,
        None if length is None else int.from_bytes(length, "little"), authenticated, payload,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transport:
    """
    TPL: CI field, kind of content, header, and the octets behind header and configuration.

    `associated` are the octets that mode 10 authenticates (BSI details 10.3); `counter` its message counter.
    """

    ci: int
    content: str
    header: TransportHeader
    extension: int
    counter: bytes | None
    associated: bytes
    data: bytes

    @property
    def mode(self) -> int:
        """Security mode."""
        return self.header.configuration >> 8 & 0x1F

    @property
    def block_count(self) -> int:
        """Encrypted blocks of 16 octets (modes 5 and 7)."""
        return self.header.configuration >> 4 & 0x0F


def take_transport(data: bytes) -> Transport:
    """The transport layer that starts with its CI.  Raises RemoteProtocolError: unknown CI, or cut off."""
    ci = data[0]
    known = TRANSPORT.get(ci)
    if known is None:
        raise RemoteProtocolError("unknown_ci", f"CI field {ci:02x}")
    which, content = known
    header, rest = TransportHeader(0, 0, 0), data[1:]
    if which == "long":
        header, rest = take_long_header(rest)
    elif which == "short":
        header, rest = take_short_header(rest)
    fields = data[len(data) - len(rest) - 4 : len(data) - len(rest)] if which != "none" else b""
    mode = header.configuration >> 8 & 0x1F
    extension, counter, size = 0, None, 0
    if mode == MODE_7:
        size = 1
    elif mode == MODE_10:
        size = 2
    if len(rest) < size:
        raise RemoteProtocolError("header_truncated", "no configuration extension", offset=len(data))
    extension = int.from_bytes(rest[:size], "little")
    if mode == MODE_10:
        size += extension >> 6 & 1
        counter = rest[size : size + 4]
        if len(counter) < 4:
            raise RemoteProtocolError("header_truncated", "no message counter", offset=len(data))
        fields += rest[:size]
        size += 4
    return Transport(ci, content, header, extension, counter, bytes([ci]) + fields, rest[size:])
