"""What comes out of a SOCKS-TLS connection."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.socks_tls.messages import Destination, Reply


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The TLS handshake is done; `certificate` is what the peer showed (DER)."""

    certificate: bytes


@dataclass(frozen=True, slots=True)
class Requested:
    """At the server: the client asks to be connected."""

    destination: Destination


@dataclass(frozen=True, slots=True)
class Replied:
    """At the client: the server's answer; anything but SUCCEEDED is followed by the end."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Data:
    """Application data."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more comes; `is_clean` where the peer said so by a closing handshake."""

    is_clean: bool


Event = Authenticated | Requested | Replied | Data | Closed
