"""
The network that is emulated: endpoints, each with one link to a hub, and what must be known of them by a back end.

`lines` makes one endpoint stand for several lines (a process that hosts many gateways): `proxy` gives each connection a
line of its own, the other back ends give all connections together `lines` times the rate.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from netem.errors import InvalidDataError
from netem.profiles import UNSHAPED, LinkProfile, Model, Name, parse_toml, read, validated

Port = Annotated[int, Field(ge=0, le=65535)]
COORDINATOR = "coordinator"
"""The endpoint that `coordinator` selects in a scenario."""


class Address(Model):
    """A TCP address; in files the string `HOST:PORT`."""

    host: str = "127.0.0.1"
    port: Port

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdecimal():
            raise ValueError("expected HOST:PORT, for example 127.0.0.1:7300")
        return {"host": host.removeprefix("[").removesuffix("]"), "port": int(port)}

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Endpoint(Model):
    """One end of a link."""

    name: Name
    area: Name = "default"
    profile: Name = UNSHAPED.name
    lines: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    interface: Annotated[str, Field(pattern=r"^[\w.@-]{1,15}$")] | None = None
    """For `tc`: the interface that is this endpoint's link."""
    namespace: Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")] | None = None
    """For `tc`: the network namespace of the interface; None: the one this program runs in."""
    command: tuple[str, ...] = ()
    """What `netem run` starts at this endpoint."""


class Relay(Model):
    """For `proxy`: connections to `listen` are those of `source` to `destination`, which serves at `target`."""

    source: Name
    destination: Name = COORDINATOR
    listen: Address
    target: Address
    when_cut: Literal["stall", "reset"] = "stall"
    """What connections see while the path is cut: silence, or a reset."""


class Network(Model):
    """All endpoints, and the relays of the `proxy` back end."""

    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1, max_length=10_000)]
    relays: tuple[Relay, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [endpoint.name for endpoint in self.endpoints]
        if twice := sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []:
            raise ValueError(f"endpoint {twice[0]} is there twice; expected distinct names")
        for relay in self.relays:
            for name in (relay.source, relay.destination):
                if name not in names:
                    raise ValueError(f"a relay names the endpoint {name}, which is not there; expected one of {names}")
        return self

    def base_profiles(self, profiles: dict[str, LinkProfile]) -> dict[str, LinkProfile]:
        """The profile of each endpoint by its name.  Raises InvalidDataError for a profile that is not there."""
        for endpoint in self.endpoints:
            if endpoint.profile not in profiles:
                raise InvalidDataError(
                    f"endpoint {endpoint.name}: found profile {endpoint.profile}; expected one of {', '.join(profiles)}"
                )
        return {endpoint.name: profiles[endpoint.profile] for endpoint in self.endpoints}


def load_network(source: str | Path) -> Network:
    """A network of a TOML file, or a shipped one by its name.  Raises InvalidDataError."""
    shipped = resources.files("netem") / "data" / "networks" / f"{source}.toml"
    if shipped.is_file():
        return parse_network(shipped.read_text(encoding="utf-8"), str(source))
    return parse_network(read(Path(source)), str(source))


def parse_network(text: str, origin: str) -> Network:
    """A network of a TOML document; `origin` is named in errors (InvalidDataError)."""
    return validated(Network, parse_toml(text, origin), origin)
