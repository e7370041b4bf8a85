"""
Communication profiles for WAN and HAN, and proxy communication profiles for controllable systems (CLS).

They name who may be spoken to, where, and by which certificates; fields are our reading of BSI TR-03109-1.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from protocol.profiles.base import Fingerprint, Identifier, MeteringPoint, Timed


def _server_name(name: str) -> str:
    try:
        name.encode("idna")  # as whoever connects does
    except UnicodeError:
        raise ValueError("expected a host name of parts of 1 to 63 characters") from None
    return name


def _host_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not 0 < int(port) < 65_536:
        raise ValueError("expected a port from 1 to 65535")
    _server_name(host)
    return text


def _https_uri(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # whose text may repeat the address
        raise ValueError("expected https://HOST[:PORT][/PATH]") from None
    if not host or port == 0:
        raise ValueError("expected a host, and a port from 1 to 65535")
    _server_name(host)
    return text


HttpsUri = Annotated[
    str, StringConstraints(pattern=r"^https://[^\s/?#@]+(/[^\s?#]*)?$", max_length=250), AfterValidator(_https_uri)
]  # fmt: skip
"""An address without credentials, query or fragment."""

HostPort = Annotated[
    str, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):\d{1,5}$"),
    AfterValidator(_host_port),
]  # fmt: skip
"""A host, or an IPv6 address in brackets, and a TCP port."""

LocalServerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,63}$")]
"""What a controllable system calls whom it wants (REQ.TA.SOCKSTLS.Connect.35)."""

ServerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{1,253}$"), AfterValidator(_server_name)]


BeginEvent = Literal[
    "started", "profiles_taken", "measurement_suspended", "measurement_resumed", "clock_deviated", "meter_fault"
]
"""Events of the gateway's log (protocol.logs.events) at which it may begin a connection."""

_LATER: Final[dict[str, Any]] = {"cls_address": None, "begin_every_s": None, "begin_offset_s": 0, "begin_events": []}


class WanProfile(Timed):
    """A peer on the WAN: its address and the certificates that are accepted for each purpose."""

    id: Identifier
    role: Literal["administrator", "participant"]
    uri: HttpsUri
    tls_certificate: Fingerprint
    encryption_certificate: Fingerprint
    signature_certificate: Fingerprint


class HanProfile(Timed):
    """
    A consumer, technician or controllable system on the HAN, and how it proves who it is.

    `ha1_sha256` and `ha1_md5` verify a first password (HA1 of RFC 7616, the realm being the gateway's id in lower
    case); a consumer who has set another one goes by that until a new first password comes.
    """

    id: Identifier
    role: Literal["consumer", "technician", "cls"]
    user: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    certificate: Fingerprint | None = None
    ha1_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(default=None, repr=False)
    ha1_md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = Field(default=None, repr=False)
    metering_points: Annotated[tuple[MeteringPoint, ...], Field(max_length=32)] = ()
    facades: Annotated[tuple[Literal["ppc", "theben", "emh"], ...], Field(max_length=3)] = ()

    @model_validator(mode="after")
    def _own_things(self) -> Self:
        if self.role == "cls" and self.certificate is None:
            raise ValueError("certificate: a controllable system needs one")
        if self.role != "consumer" and (self.ha1_sha256 or self.ha1_md5):
            raise ValueError("ha1_sha256, ha1_md5: passwords are for consumers, others show a certificate")
        if self.role != "consumer" and (self.metering_points or self.facades):
            raise ValueError("metering_points, facades: for consumers only")
        return self


class ProxyProfile(Timed):
    """
    A controllable system and the market participant that it may be connected with, and who may begin.

    `server_name` is the localServerName: what the system asks for.  `wan_server_name` is what the gateway calls the
    participant's server in the TLS handshake (wanTlsSni), the host of `address` where it is missing.

    Where the participant (HKS4) or the gateway (HKS5) begins, the gateway opens both sessions: `cls_address` is the
    system's TLS server at home, by address or by a name that ends in `.local`.  The gateway begins at multiples of
    `begin_every_s` after `begin_offset_s` (Unix time, s), and at `begin_events` of its log.
    """

    id: Identifier
    cls: Identifier
    participant: Identifier
    address: HostPort
    server_name: LocalServerName
    wan_server_name: ServerName | None = None
    participant_certificate: Fingerprint
    initiators: Annotated[tuple[Literal["cls", "participant", "gateway"], ...], Field(min_length=1, max_length=3)]
    idle_timeout_s: Annotated[int, Field(ge=10, le=86_400)] = 600
    duration_max_s: Annotated[int, Field(ge=60, le=172_800)] = 172_800
    cls_address: HostPort | None = None
    begin_every_s: Annotated[int, Field(ge=60, le=604_800)] | None = None
    begin_offset_s: Annotated[int, Field(ge=0, le=604_799)] = 0
    begin_events: Annotated[tuple[BeginEvent, ...], Field(max_length=8)] = ()

    @model_validator(mode="after")
    def _can_begin(self) -> Self:
        if self.begin_every_s is None and not self.begin_events:
            return self
        if "gateway" not in self.initiators or self.cls_address is None:
            raise ValueError("begin_every_s, begin_events: want gateway among initiators, and cls_address")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Gateways of releases before these fields take a set that does not use them; its octets stay the same."""
        made: dict[str, Any] = handler(self)
        return {name: value for name, value in made.items() if name not in _LATER or value != _LATER[name]}

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port of `address`."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def shown_name(self) -> str | None:
        """What the gateway calls the participant's server in the handshake; None for an address, which none shows."""
        name = (self.wan_server_name or self.endpoint[0]).removesuffix(".").lower()
        try:
            ip_address(name)
        except ValueError:
            return name
        return None

    @property
    def cls_endpoint(self) -> tuple[str, int] | None:
        """Host and port of `cls_address`."""
        if self.cls_address is None:
            return None
        host, _, port = self.cls_address.rpartition(":")
        return host.strip("[]"), int(port)
