"""
What a load test plays, as data: how many gateways in which processes, on which lines, and what is done to them when.

A scenario is a TOML file, shipped in `data/` or the user's own; `load_scenario` checks it before anything starts.
Rounds are counted from the first that is held, and an event's moment is a round and a part of its period, so that the
same scenario can be played with ten gateways in seconds and with ten thousand in an hour.
"""

from __future__ import annotations

import math
import tomllib
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from protocol.errors import StromkreisError

COORDINATORS = "coordinators"
"""The target of an event that names no group: the coordinators."""
ACTIVE = "active-coordinators"
"""Those of them that are the ring service now; others stand by."""
EVERYBODY = "all"
CHURN_GROUPS = 4
"""Groups that a churn takes in turn: each comes back every fourth round, within the returns that gateways have."""
_GATEWAYS_OF_A_COORDINATOR = 10_000
_PERIOD_S_MIN = 1.0
_SETTLED_ROUNDS = 2  # before a churn begins, and after it ends


class Action(StrEnum):
    """What is done to processes."""

    KILL = "kill"
    """SIGKILL; they are started again after `rounds`."""
    TERMINATE = "terminate"
    """SIGTERM: they settle the round that runs and stop; they are started again after `rounds`."""
    ROLL = "roll"
    """SIGTERM and a new start, one process after the other, each waited for until its gateways are placed."""
    KILL_HEADS = "kill-heads"
    """SIGKILL of the processes of the target that host the head of a ring just now, and a new start after `rounds`."""
    HANG = "hang"
    """SIGSTOP of coordinators that others stand by for: their watchdogs kill them; they start again after `rounds`."""
    CUT = "cut"
    """Their network namespaces are cut off from all others for `rounds`."""
    STARVE = "starve"
    """They get `share` of the time only, stopped by SIGSTOP in between, as a processor quota does it, for `rounds`."""
    LOSE_VOLUME = "lose-volume"
    """SIGKILL, and their data is deleted; ids are released and enrolled anew, with new keys, after `rounds`."""
    BACK_UP = "back-up"
    """`stromkreis backup` of running coordinators."""
    RESTORE = "restore"
    """SIGKILL of coordinators, their data is deleted, the backup put in its place, and they start after `rounds`."""

    @property
    def is_for_coordinators(self) -> bool:
        """Whether nothing else can be its target."""
        return self in {Action.BACK_UP, Action.RESTORE, Action.HANG}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Group(_Model):
    """Processes alike that host a share of the gateways."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    share: Annotated[float, Field(gt=0, le=1)]
    processes: Annotated[int, Field(ge=1, le=1_000)] = 1
    """At least so many; more where one could not open files enough."""


class Event(_Model):
    """What is done to a group, in which round, and for how long."""

    round: Annotated[int, Field(ge=0, le=10_000)]
    at: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Part of the round's period that has passed: 0.05 is while the ring computes."""
    action: Action
    target: str = EVERYBODY
    rounds: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """How long it lasts, in rounds; None: what is done is over at once (a killed process starts again)."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """For `starve`: the part of the time that processes get."""


class Lines(_Model):
    """The network between gateways and coordinator: all traffic passes the coordinator then (`link.mode = relay`)."""

    profile: Annotated[str, Field(min_length=1)]
    """A link profile of `stromkreis netem list`, a line of its own for each connection."""
    timeline: str | None = None
    """A scenario of `stromkreis netem list`, from the first round on."""


class Expected(_Model):
    """What a run must reach beside exact totals and conserved energy."""

    opened_min: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Part of the ring rounds that open."""
    whole_at_the_end: bool = True
    """In a last round every ring opens with all its gateways, but for those that may not come back yet."""


class Scenario(_Model):
    """One scenario; its name is that of the file."""

    name: str
    title: str
    gateways: Annotated[int, Field(ge=3, le=1_000_000)]
    rounds: Annotated[int, Field(ge=2, le=10_000)]
    period_s: Annotated[float, Field(gt=0, le=900)] | None = None
    """Seconds of wall clock from one round to the next; None: as many as this machine needs for so many gateways."""
    ring_size: Annotated[int, Field(ge=3, le=512)] = 64
    area_size: Annotated[int, Field(ge=3, le=100_000)] = 256
    """Gateways of an area, about."""
    corrupt: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    dropout: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    epoch_rounds: Annotated[int, Field(ge=2, le=672)] = 96
    coordinators: Annotated[int, Field(ge=1, le=100)] = 1
    """At least so many, with areas of their own; one more for each 10,000 gateways."""
    standby: bool = False
    """A second process stands by for each coordinator, on the same database."""
    groups: tuple[Group, ...] = (Group(name="steady", share=1.0),)
    churn: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    """Share of the gateways whose processes are killed in every round, those of `CHURN_GROUPS` groups in turn."""
    lines: Lines | None = None
    namespaces: bool = False
    """Every process has a network namespace of its own (wants root)."""
    events: tuple[Event, ...] = ()
    expected: Expected = Expected()

    @property
    def coordinators_in_force(self) -> int:
        """One for each 10,000 gateways at least."""
        return max(self.coordinators, math.ceil(self.gateways / _GATEWAYS_OF_A_COORDINATOR))

    def period_in_force_s(self, cores: int) -> float:
        """Some 6 ms of one core a gateway: meters, gateways and coordinator of a round, and as much again in hand."""
        return self.period_s if self.period_s is not None else _PERIOD_S_MIN + 0.008 * self.gateways / max(1, cores)

    def all_groups(self) -> tuple[Group, ...]:
        """The groups, and those of the churn, which takes its share off each of the others."""
        if not self.churn:
            return self.groups
        left = 1 - CHURN_GROUPS * self.churn
        mine = [each.model_copy(update={"share": each.share * left}) for each in self.groups]
        return (*mine, *(Group(name=f"churn-{i}", share=self.churn) for i in range(CHURN_GROUPS)))

    def all_events(self) -> tuple[Event, ...]:
        """The events, and those of the churn, in order."""
        churn = (
            Event(round=r, action=Action.KILL, target=f"churn-{r % CHURN_GROUPS}")
            for r in range(_SETTLED_ROUNDS, self.rounds - _SETTLED_ROUNDS)
            if self.churn
        )
        return tuple(sorted((*self.events, *churn), key=lambda each: (each.round, each.at)))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        total = sum(each.share for each in self.groups)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"groups: shares that add up to 1, these add up to {total:g}")
        names = [each.name for each in self.all_groups()]
        if len(set(names)) != len(names):
            raise ValueError("groups: different names")
        if reserved := sorted({"coordinator", "meters"} & set(names)):
            raise ValueError(f"groups: another name than {reserved[0]}, which processes of another kind have")
        for each in self.events:
            if each.target not in {*names, COORDINATORS, ACTIVE, EVERYBODY}:
                known = ", ".join((*names, COORDINATORS, ACTIVE, EVERYBODY))
                raise ValueError(f"events: {each.action} has the target {each.target}; expected one of {known}")
            if each.round >= self.rounds:
                raise ValueError(f"events: {each.action} in round {each.round}, and the last one is {self.rounds - 1}")
            if each.action.is_for_coordinators and each.target not in {COORDINATORS, ACTIVE}:
                raise ValueError(f"events: {each.action} is for the targets {COORDINATORS} and {ACTIVE}")
            if each.action is Action.HANG and not self.standby:
                raise ValueError("events: hang wants standby = true: without one nobody kills what hangs")
            if each.action is Action.CUT and not self.namespaces:
                raise ValueError("events: cut wants namespaces = true")
        if self.standby and self.namespaces:
            raise ValueError("standby without namespaces: both coordinators listen at one address")
        if self.lines is not None and (self.namespaces or self.coordinators_in_force > 1):
            raise ValueError("lines without namespaces, and with one coordinator (at most 10,000 gateways)")
        return self


def shipped() -> dict[str, Scenario]:
    """The scenarios that come with the program, by name."""
    found = (resources.files("loadtest.scenarios") / "data").iterdir()
    names = sorted(each.name.removesuffix(".toml") for each in found if each.name.endswith(".toml"))
    return {name: load_scenario(name) for name in names}


def load_scenario(source: str, changes: dict[str, Any] | None = None) -> Scenario:
    """
    A shipped scenario by its name, or one of a TOML file; `changes` go before what it says.

    Raises StromkreisError that names the file, the key and what was expected.
    """
    text, name = _text(source)
    try:
        values = tomllib.loads(text)
        return Scenario.model_validate({"name": name, **values, **(changes or {})})
    except tomllib.TOMLDecodeError as error:
        raise StromkreisError(f"{source}: not TOML: {error}") from None
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, each['loc'])) or 'scenario'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_url=False)
        ]
        raise StromkreisError(f"{source}: {'; '.join(lines)}") from None


def _text(source: str) -> tuple[str, str]:
    folder = resources.files("loadtest.scenarios") / "data"
    if (folder / f"{source}.toml").is_file():
        return (folder / f"{source}.toml").read_text(encoding="utf-8"), source
    path = Path(source)
    if path.suffix != ".toml":
        known = ", ".join(sorted(each.name.removesuffix(".toml") for each in folder.iterdir()))
        raise StromkreisError(f"found scenario {source}; expected one of {known}, or a TOML file")
    try:
        return path.read_text(encoding="utf-8"), path.stem
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise StromkreisError(f"{path}: cannot be read: {reason}") from None
