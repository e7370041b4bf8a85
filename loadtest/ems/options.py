"""The six options of the paper: its table 2, and what each means for a scenario."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Source(Enum):
    """Where an energy management system (EMS) gets its values."""

    CONSUMER_INTERFACE = "consumer interface"
    INBOX = "participant's inbox"
    COLLECTOR = "own collector at the meter"
    TUNNEL = "own collector, through the tunnel"


@dataclass(frozen=True, slots=True)
class Paper:
    """A row of table 2."""

    measurements: str
    resolution: str
    channel: str
    active_emp: str
    access: str


@dataclass(frozen=True, slots=True)
class Option:
    """
    `local` and `remote` are the sources of the two EMS, None where there is no such one; `commands` is who commands.

    `bounds`: the remote one limits the local one, which commands.
    """

    name: str
    title: str
    local: Source | None
    remote: Source | None
    remote_commands: bool
    bounds: bool
    paper: Paper

    @property
    def uses_tunnel(self) -> bool:
        """Whether anything passes through the gateway's proxy."""
        return self.remote_commands or self.bounds

    @property
    def uses_wan(self) -> bool:
        """Whether anything leaves the home."""
        return self.remote is not None


_SMGW = "consumer interface of the gateway"
_FINE = "at least 1 s by the TR, without a tariff use case; 15 min by PTB-A 50.8"
_TAF7 = "billing period by the TR (5 min guaranteed, under 1 min possible); 15 min by PTB-A 50.8"
_OWN = "as the meter gives them"
_COLLECTOR = "own collector at the meter"

OPTIONS: Final = {
    each.name: each
    for each in (
        Option(
            "1a", "local EMS, values of the gateway", Source.CONSUMER_INTERFACE, None, False, False,
            Paper(_SMGW, _FINE, "no", "no", "direct, in the home"),
        ),
        Option(
            "1b", "remote EMS, values of the gateway", None, Source.INBOX, True, False,
            Paper("market participant (EMP), TAF 7", _TAF7, "required", "required", "direct, through the tunnel"),
        ),
        Option(
            "1c", "local and remote EMS, values of the gateway", Source.CONSUMER_INTERFACE, Source.INBOX, False, True,
            Paper(f"local: {_SMGW}; remote: EMP, TAF 7", f"local: {_FINE}; remote: {_TAF7}", "required", "required",
                  "indirect, through the local EMS"),
        ),
        Option(
            "2a", "local EMS, own collector", Source.COLLECTOR, None, False, False,
            Paper(_COLLECTOR, _OWN, "no", "no", "direct, in the home"),
        ),
        Option(
            "2b", "remote EMS, own collector", None, Source.TUNNEL, True, False,
            Paper(_COLLECTOR, _OWN, "required", "required", "direct, through the tunnel"),
        ),
        Option(
            "2c", "local and remote EMS, own collector", Source.COLLECTOR, Source.TUNNEL, False, True,
            Paper(_COLLECTOR, _OWN, "required", "required", "indirect, through the local EMS"),
        ),
    )
}  # fmt: skip
