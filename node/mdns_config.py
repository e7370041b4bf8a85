"""The configuration of a gateway's multicast DNS: on which interfaces it tells its names and services."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from node.config_section import ConfigSection

InterfaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,15}$")]


class MdnsConfig(ConfigSection):
    """Names and services of the gateway at home, by multicast DNS (docs/howto/cls.md)."""

    interfaces: Annotated[tuple[InterfaceName, ...], Field(max_length=8)] = ()
    """Network interfaces at home, for example eth0, on which <id>.local and smgw.local and the services of han and cls
    are answered for. Empty: none. Never the WAN's."""
