"""
The messages of SOCKS version 5 (RFC 1928, sections 3, 4 and 6), as far as chapter 11 of BSI TR-03109-1 uses them.

Readers get what has come so far and return how much of it the message took; None is "not whole yet".  Each message has
a greatest length, so what waits for the rest is bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from protocol.errors import RemoteProtocolError

VERSION: Final = 0x05
TLS_METHOD: Final = 0x06
"""As IANA has it (REQ.TA.SOCKSTLS.InitiateAuthNegotiation.20); the draft says 0x86."""
NO_METHOD: Final = 0xFF
GREETING_SIZE_MAX: Final = 2 + 255
REQUEST_SIZE_MAX: Final = 4 + 1 + 255 + 2
_CONNECT: Final = 0x01
_IPV4, _DOMAIN, _IPV6 = 0x01, 0x03, 0x04
_SIZES: Final = {_IPV4: 4, _IPV6: 16}
_LOCAL_NAME: Final = re.compile(r"[a-z0-9.-]{1,63}")

Host = str | IPv4Address | IPv6Address


class Reply(IntEnum):
    """The field REP (RFC 1928, section 6; what it means at the gateway: table 11.1)."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08


@dataclass(frozen=True, slots=True)
class Destination:
    """What a CONNECT names: a name or an address, and a port."""

    host: Host
    port: int

    @property
    def local_name(self) -> str | None:
        """The name, where it may be a localServerName (REQ.TA.SOCKSTLS.Connect.35), and None for anything else."""
        return self.host if isinstance(self.host, str) and _LOCAL_NAME.fullmatch(self.host) else None


class RequestError(RemoteProtocolError):
    """A request that cannot be served, and the reply that says so."""

    def __init__(self, reply: Reply, detail: str) -> None:
        super().__init__("bad_request", detail)
        self.reply = reply


def read_greeting(data: bytes) -> tuple[bytes, int] | None:
    """The methods that a client offers.  Raises RemoteProtocolError `bad_greeting` for another version of SOCKS."""
    if data and data[0] != VERSION:
        raise RemoteProtocolError("bad_greeting", f"SOCKS version {data[0]}, expected {VERSION}")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    end = 2 + data[1]
    return bytes(data[2:end]), end


def greeting(methods: bytes) -> bytes:
    """What a client begins with."""
    return bytes((VERSION, len(methods))) + methods


def read_selection(data: bytes) -> tuple[int, int] | None:
    """The method that the server has chosen.  Raises RemoteProtocolError `bad_greeting`."""
    if data and data[0] != VERSION:
        raise RemoteProtocolError("bad_greeting", f"SOCKS version {data[0]}, expected {VERSION}")
    return None if len(data) < 2 else (data[1], 2)


def selection(method: int) -> bytes:
    """A server's choice."""
    return bytes((VERSION, method))


def read_request(data: bytes) -> tuple[Destination, int] | None:
    """What a client wants to be connected with.  Raises RequestError for anything but a CONNECT."""
    if data and data[0] != VERSION:
        raise RequestError(Reply.GENERAL_FAILURE, f"SOCKS version {data[0]}, expected {VERSION}")
    if len(data) > 1 and data[1] != _CONNECT:
        raise RequestError(Reply.COMMAND_NOT_SUPPORTED, f"command {data[1]}, expected CONNECT ({_CONNECT})")
    found = _read_address(data)
    if found is None:
        return None
    host, end = found
    return Destination(host, int.from_bytes(data[end - 2 : end])), end


def request(destination: Destination) -> bytes:
    """A CONNECT; a name is sent in ASCII and has at most 255 octets."""
    if isinstance(destination.host, str):
        name = destination.host.encode("ascii")
        address = bytes((_DOMAIN, len(name))) + name
    else:
        kind = _IPV4 if isinstance(destination.host, IPv4Address) else _IPV6
        address = bytes((kind,)) + destination.host.packed
    return bytes((VERSION, _CONNECT, 0)) + address + destination.port.to_bytes(2)


def read_reply(data: bytes) -> tuple[Reply, int] | None:
    """The answer to a request; the address bound is not looked at.  Raises RemoteProtocolError `bad_reply`."""
    if data and data[0] != VERSION:
        raise RemoteProtocolError("bad_reply", f"SOCKS version {data[0]}, expected {VERSION}")
    try:
        found = _read_address(data)
        if found is None:
            return None
        return Reply(data[1]), found[1]
    except (RequestError, ValueError):
        raise RemoteProtocolError("bad_reply", "a code or an address type that RFC 1928 has not") from None


def reply(code: Reply) -> bytes:
    """An answer, BND.ADDR and BND.PORT zero (REQ.TA.SOCKSTLS.Connect.60)."""
    return bytes((VERSION, code, 0, _IPV4)) + bytes(4 + 2)


def _read_address(data: bytes) -> tuple[Host, int] | None:
    """The address from octet 3 on, and where the port after it ends."""
    if len(data) < 5:
        return None
    kind = data[3]
    if kind == _DOMAIN:
        begin, size = 5, data[4]
    elif kind in _SIZES:
        begin, size = 4, _SIZES[kind]
    else:
        raise RequestError(Reply.ADDRESS_TYPE_NOT_SUPPORTED, f"address type {kind}, expected 1, 3 or 4")
    end = begin + size + 2
    if len(data) < end:
        return None
    octets = bytes(data[begin : begin + size])
    if kind == _DOMAIN:
        return octets.decode("latin-1"), end  # any octets: what is no localServerName is refused as unknown
    return IPv4Address(octets) if kind == _IPV4 else IPv6Address(octets), end
