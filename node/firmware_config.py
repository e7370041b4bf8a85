"""Section `[node.firmware]`: whether a node takes firmware from its administrator, and where it keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from node.config_section import ConfigSection

PublisherKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FirmwareConfig(ConfigSection):
    """Firmware that the administrator rolls out (docs/howto/firmware.md)."""

    directory: Path | None = None
    """Directory of the two slots that firmware is unpacked into. Set, `stromkreis node` supervises the node: it starts
    the release in force, tries a new one, and goes back where that does not come up. None: no firmware is taken."""

    publishers: tuple[PublisherKey, ...] = ()
    """Ed25519 public keys, 64 hexadecimal digits each, of those whose releases are taken (`stromkreis gwa firmware
    key`). The administrator orders a release, but what a gateway runs is for its publisher to say: a key of the
    administrator's does not belong here. Needed with `directory`."""

    hardware: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] = "generic"
    """What this machine is called in manifests; firmware for other hardware is refused."""

    confirm_s: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    """Seconds within which a new release must have its gateways enrolled, linked to the coordinator, and answered by
    the administrator. Raising it spares a good release that meets a coordinator which is away, and leaves the gateways
    for longer with one that does not work."""

    @model_validator(mode="after")
    def _has_a_publisher(self) -> Self:
        if self.directory is not None and not self.publishers:
            raise ValueError("publishers: expected at least one key where directory is set")
        return self
