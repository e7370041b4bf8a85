"""The configuration of a gateway's proxy for controllable systems (CLS): where it listens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from node.config_section import ConfigSection


class ClsConfig(ConfigSection):
    """The gateway's proxy for controllable systems at home (docs/howto/cls.md)."""

    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9.-]+):\d{1,5}$")] | None = None
    """HOST:PORT where controllable systems connect, for example 192.168.1.200:1080; port 0 takes a free one. Who may,
    and to whom, says the administrator's profile set. None: nowhere."""

    begins: bool = False
    """Whether the gateway opens connections to controllable systems by itself: at the administrator's order for a
    market participant, and at times and events that a profile names."""
