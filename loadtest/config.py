"""
The configuration of `stromkreis meters`: how many simulated meters, of which kind, and how fast their time runs.

One section `[meters]` of the configuration file; the loader belongs to the command line.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from node.ordinal import filled, resolve

Profile = Literal["H25", "H0", "G0", "PV"]
MeterProtocol = Literal[
    "sml", "lks1", "dlms", "dlms-mbus", "mbus", "wmbus", "iec62056-21", "p1", "p1-encrypted"
]  # fmt: skip


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class MetersConfig(BaseModel):
    """Section `[meters]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ordinal: Annotated[int, Field(ge=0)] | Literal["hostname"] | None = None
    """Number of this process among others alike. {ordinal} stands for it in the other values, for example seed =
    "1{ordinal:03}", so that each has households of its own. hostname: what the host's name ends in."""

    count: Annotated[int, Field(ge=0, le=50_000)] = 24
    """Simulated households, one meter each. Each costs one listening socket."""

    profiles: Annotated[tuple[Profile, ...], Field(min_length=1)] = ("H25", "H0", "G0", "PV")
    """Load profiles, dealt out in turn: H25 and H0 households, G0 trade, PV household with a photovoltaic roof."""

    protocols: Annotated[tuple[MeterProtocol, ...], Field(min_length=1), BeforeValidator(_split)] = ("sml",)
    """What the meters speak, dealt out in turn: sml, lks1 (the wired LMN: SML in TLS in HDLC), dlms (asked), dlms-mbus
    (pushed on an M-Bus, as in Austria), mbus, wmbus, iec62056-21, p1, p1-encrypted (as in Luxembourg); a text with
    commas will do."""

    link: Literal["tcp", "pty"] = "tcp"
    """tcp: a port for each meter. pty: a pseudo-terminal for each, which a gateway on this machine opens like a serial
    line; DLMS then speaks HDLC."""

    replay: Path | None = None
    """Directory with recorded SML dumps (frames.jsonl) that are served byte for byte beside the simulated
    households."""

    replay_count_max: Annotated[int, Field(ge=0, le=1_000)] = 1_000
    """Recorded meters to serve at most."""

    seed: int = 1
    """Seed of annual consumptions and starting registers; the same seed gives the same neighbourhood."""

    host: str = "127.0.0.1"
    """Address to listen on. Simulated meters have no protection: keep them off real networks."""

    first_port: Annotated[int, Field(ge=0, le=65_535)] = 20_000
    """Port of the first meter, the next take the next; 0 takes free ones, which the meter list then tells."""

    origin_unix_s: float | None = None
    """Start of simulated quarter hour 0 as Unix time in seconds; None: the last multiple of four years, simulated ones
    where they go by faster, so that registers go on over a restart."""

    period_s: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    """Wall-clock seconds of one simulated quarter hour; 900 is real time, 1 is 900-fold time lapse."""

    start_quarter_hour: Annotated[int, Field(ge=0, lt=35_040)] = 0
    """Quarter hour of the year at which the load profiles start: 96·day + 4·hour; 172 days · 96 + 40 is a June
    morning."""

    annual_kwh: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Annual consumption of every household; None: drawn for each, about 1,500 to 6,000 kWh (households), to 30,000
    (trade)."""

    feed_in_percent: Annotated[int, Field(ge=0, le=1_000)] = 140
    """Annual generation of a PV household in percent of its annual consumption (5 kWp on a 3,500 kWh home: about
    140)."""

    register_decimals: Annotated[int, Field(ge=-3, le=1)] = 1
    """Digits behind the point of a Wh that energy registers show: 1 is 0.1 Wh, 0 is 1 Wh, -3 is 1 kWh. P1 shows at
    most 1 Wh."""

    scenario: Path | None = None
    """TOML file that says what happens to the meters: exchange, clock errors, daylight saving, manipulation, silence
    (docs/howto/scenarios.md)."""

    meter_list: Path | None = None
    """JSON file that says which meter is where and what its keys are, written once all listen."""

    gateways: Path | None = None
    """TOML file with a gateway for each meter, its keys included: tables [[node.gateways]] for a node's configuration,
    written once all listen."""

    def protocol_of(self, index: int) -> MeterProtocol:
        """What household `index` speaks; the deal shifts by one each time around, so every profile meets every one."""
        around = math.lcm(len(self.profiles), len(self.protocols))
        return self.protocols[(index + index // around) % len(self.protocols)]

    @model_validator(mode="before")
    @classmethod
    def _ordinal_stands_in_texts(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        ordinal = resolve(section.get("ordinal"))
        return filled({**section, "ordinal": ordinal}, ordinal)

    @model_validator(mode="after")
    def _ports_exist(self) -> Self:
        if self.link == "tcp" and self.first_port and self.first_port + self.count > 65_536:
            raise ValueError(f"first_port + count at most 65536, these are {self.first_port + self.count}")
        if not self.count and self.replay is None:
            raise ValueError("a count over 0, or a replay directory")
        return self
