"""
Link profiles: what a line does to packets, in each direction, with the sources of the figures.

The shipped profiles are `data/profiles.toml`; a file of the same form may add to them or replace them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from netem.errors import InvalidDataError

Seconds = Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]

JITTER_CUT = 3.0
"""Jitter is drawn from a normal distribution that is cut at this many standard deviations."""


class Model(BaseModel):
    """A value read from TOML: unknown keys are refused, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Direction(Model):
    """One direction of a link."""

    delay_s: Seconds = 0.0
    """One-way delay without queueing and without the time that sending at `rate_bit_s` takes."""
    jitter_s: Seconds = 0.0
    """Standard deviation of the one-way delay; at most the delay itself."""
    loss: Share = 0.0
    """Share of the packets that is lost, each independently."""
    rate_bit_s: Annotated[int, Field(ge=1_000, le=10_000_000_000)] | None = None
    """Rate of the line, Ethernet frames included; None: not limited."""
    queue_s: Seconds = 0.2
    """How long a packet may wait for its turn at `rate_bit_s` before it is dropped (bufferbloat: more)."""

    @model_validator(mode="after")
    def _jitter_within_delay(self) -> Self:
        if self.jitter_s > self.delay_s:
            raise ValueError(f"found jitter_s {self.jitter_s:g}; expected at most delay_s, {self.delay_s:g}")
        return self

    @property
    def delays(self) -> bool:
        """Whether packets wait on purpose."""
        return self.delay_s > 0

    def in_flight_bytes(self) -> int:
        """Bytes that the direction holds at full rate: on their way and queued; 1 MiB where the rate has no limit."""
        if self.rate_bit_s is None:
            return 1 << 20
        held_s = self.delay_s + JITTER_CUT * self.jitter_s + self.queue_s
        return max(1 << 14, int(self.rate_bit_s / 8 * held_s))


class Outages(Model):
    """Spontaneous outages: a Poisson process of cuts whose durations are uniformly distributed."""

    mean_interval_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    duration_min_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    duration_max_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.duration_max_s < self.duration_min_s:
            raise ValueError("expected duration_max_s of at least duration_min_s")
        return self


class LinkProfile(Model):
    """A kind of link: `up` is towards the hub (what the endpoint sends), `down` is from it."""

    name: Name
    title: str
    up: Direction = Direction()
    down: Direction = Direction()
    outages: Outages | None = None
    sources: tuple[str, ...] = ()
    assumed: str = ""
    """What no source gives and we chose."""

    @property
    def round_trip_s(self) -> float:
        """Delay of both directions, without queueing and without sending time."""
        return self.up.delay_s + self.down.delay_s

    def degraded(self, *, delay_factor: float = 1.0, rate_factor: float = 1.0, loss: float = 0.0) -> LinkProfile:
        """The same link in a worse state: delays and jitter times a factor, rate times a factor, loss on top."""

        def worse(direction: Direction) -> Direction:
            rate = direction.rate_bit_s
            return direction.model_copy(
                update={
                    "delay_s": min(60.0, direction.delay_s * delay_factor),
                    "jitter_s": min(60.0, direction.jitter_s * delay_factor),
                    "rate_bit_s": None if rate is None else max(1_000, int(rate * rate_factor)),
                    "loss": 1 - (1 - direction.loss) * (1 - loss),
                }
            )

        return self.model_copy(update={"up": worse(self.up), "down": worse(self.down)})


UNSHAPED = LinkProfile(name="none", title="not shaped")


def load_profiles(extra: Path | None = None) -> dict[str, LinkProfile]:
    """
    The shipped profiles by name, `none` among them, and those of a file.

    Raises InvalidDataError for a file that cannot be read or that has a wrong value.
    """
    shipped = resources.files("netem") / "data" / "profiles.toml"
    profiles = {UNSHAPED.name: UNSHAPED, **parse_profiles(shipped.read_text(encoding="utf-8"), "profiles.toml")}
    if extra is not None:
        profiles |= parse_profiles(read(extra), str(extra))
    return profiles


def parse_profiles(text: str, origin: str) -> dict[str, LinkProfile]:
    """Profiles of a TOML document with a table for each; `origin` is named in errors (InvalidDataError)."""
    return {name: validated(LinkProfile, {"name": name, **table}, origin, name) for name, table in tables(text, origin)}


def tables(text: str, origin: str) -> list[tuple[str, Mapping[str, object]]]:
    """The top-level tables of a TOML document.  Raises InvalidDataError where it is something else."""
    document = parse_toml(text, origin)
    for name, table in document.items():
        if not isinstance(table, dict):
            raise InvalidDataError(f"{origin}: {name}: found {type(table).__name__}; expected a table [{name}]")
    return [(name, table) for name, table in document.items() if isinstance(table, dict)]


def parse_toml(text: str, origin: str) -> dict[str, object]:
    """A TOML document.  Raises InvalidDataError with the line where it is malformed."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidDataError(f"{origin}: not TOML: {error}") from None


def read(path: Path) -> str:
    """A file's text.  Raises InvalidDataError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidDataError(f"{path}: cannot be read: {reason}") from None


M = TypeVar("M", bound=Model)


def validated(model: type[M], value: Mapping[str, object], origin: str, where: str = "") -> M:
    """A model of the value.  Raises InvalidDataError with a line for each wrong key."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = []
        for each in error.errors(include_url=False):
            place = ".".join(str(part) for part in (*([where] if where else []), *each["loc"]))
            found = "" if isinstance(each["input"], dict) else f"found {each['input']!r}; "
            at = f"{place}: " if place else ""
            lines.append(f"{origin}: {at}{found}{each['msg'].removeprefix('Value error, ')}")
        raise InvalidDataError("; ".join(lines)) from None
