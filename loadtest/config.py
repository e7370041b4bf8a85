"""
What `stromkreis meters` can be told: how many simulated meters, of which kind, and how fast their time runs.

One section `[meters]` of the configuration file; the loader belongs to the command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Profile = Literal["H25", "H0", "G0", "PV"]
MeterProtocol = Literal["sml", "dlms", "mbus", "wmbus", "iec62056-21"]


class MetersConfig(BaseModel):
    """Section `[meters]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    count: Annotated[int, Field(ge=0, le=50_000)] = 24
    """Simulated households, one meter each. Each costs one listening socket."""

    profiles: Annotated[tuple[Profile, ...], Field(min_length=1)] = ("H25", "H0", "G0", "PV")
    """Load profiles, dealt out in turn: H25 and H0 households, G0 trade, PV household with a photovoltaic roof."""

    protocol: MeterProtocol = "sml"
    """What the meters speak."""

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
    """Port of the first meter, the next take the next; 0 takes free ones, which the meter book then tells."""

    origin_unix_s: float | None = None
    """Start of simulated quarter hour 0 as Unix time in seconds; None: now."""

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

    book: Path | None = None
    """JSON file that says which meter is where (id, url, profile, annual_wh), written once all listen."""

    @model_validator(mode="after")
    def _ports_exist(self) -> Self:
        if self.first_port and self.first_port + self.count > 65_536:
            raise ValueError(f"first_port + count at most 65536, these are {self.first_port + self.count}")
        if not self.count and self.replay is None:
            raise ValueError("a count over 0, or a replay directory")
        return self
