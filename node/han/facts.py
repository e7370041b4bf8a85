"""What the interface to the home is told of its gateway, which it may not import; `node.gateway` fills it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from node.han.accounts import Account, Profiles
from node.security.home_certificate import Secrets
from node.security.module import SecurityModule
from node.storage.cipher import Cipher
from protocol.logs.events import Event, Parameter
from protocol.metering.interval import RegistrationGrid


class Note(Protocol):
    """Notes an event in the gateway's logs (`node.logs.gateway_log.GatewayLog.note`)."""

    def __call__(self, event: Event, **parameters: Parameter) -> None: ...  # noqa: D102


class Reader(Protocol):
    """A connection to the store for worker threads (node.storage.reader.StoreReader)."""

    cipher: Cipher

    def read(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]: ...  # noqa: D102


def no_tunnels(_proxy: str) -> int:
    """Of a gateway that opens none."""
    return 0


@dataclass(frozen=True, slots=True)
class MeterFacts:
    """A meter of the configuration: its name in the metering log, its own id where that is known, its protocol."""

    device: str
    meter_id: str
    protocol: str

    @property
    def resource_id(self) -> str:
        """Its own id of 14 characters (DIN 43849) where it is known, else its place."""
        own = self.meter_id.lower()
        if len(own) == 14 and own.isascii() and own.isalnum():
            return own
        return self.device.lower().replace("/", "-")


@dataclass(frozen=True, slots=True)
class RingFacts:
    """How the gateway takes part in sums."""

    area: str
    is_in_ring: bool
    is_carrying: bool
    honest_floor: int
    registers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """Where the node speaks and listens."""

    coordinator: str
    link: Literal["direct", "relay"]
    time_server: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HanServices:
    """What all gateways of a process share for their homes."""

    secrets: Secrets
    reader: Reader
    network: NetworkFacts
    accounts: dict[str, tuple[Account, ...]] = field(default_factory=dict)
    """Configured ones, by gateway."""
    certificates: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Those of configured accounts (DER), by gateway."""
    listen: dict[str, str] = field(default_factory=dict)
    """`https://HOST:PORT`, by gateway; where it is missing nothing is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFacts:
    """One gateway as its home sees it, from worker threads; `clock` is real time (Unix, s)."""

    module: SecurityModule
    profiles: Profiles
    meters: Sequence[MeterFacts]
    version: str
    clock: Callable[[], float]
    is_time_good: Callable[[], bool]
    ring: Callable[[], RingFacts]
    grid: Callable[[], RegistrationGrid | None]
    note: Note
    open_tunnels: Callable[[str], int] = no_tunnels
    """How many tunnels are open by a proxy profile."""

    @property
    def identity(self) -> str:
        """The gateway's id."""
        return self.module.identity
