"""
Scenarios: a timeline of faults as data, compiled to the network states that a back end applies.

Each event becomes *effects*: something that holds for some endpoints from one moment to another.  The state at a moment
is a pure function of the effects that hold then, so overlapping faults need no bookkeeping: a degradation that ends
while a cut goes on leaves the cut alone.  `heal` ends effects early.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from random import Random
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from netem.errors import InvalidDataError
from netem.network import COORDINATOR, Endpoint, Network
from netem.profiles import LinkProfile, Model, Name, Share, parse_toml, read, validated

Moment = Annotated[float, Field(ge=0, le=31_622_400, allow_inf_nan=False)]
Duration = Annotated[float, Field(gt=0, le=31_622_400, allow_inf_nan=False)]
Target = Annotated[str, Field(pattern=r"^(all|coordinator|first-area|area:[\w-]+|endpoint:[\w-]+|share:[\d.]+)$")]


class _Event(Model):
    at_s: Moment
    target: Target = "all"


class Cut(_Event):
    """The links of the target carry nothing."""

    action: Literal["cut"]
    duration_s: Duration | None = None


class CoordinatorOutage(_Event):
    """The coordinator's link carries nothing."""

    action: Literal["coordinator-outage"]
    target: Target = COORDINATOR
    duration_s: Duration | None = None


class Partition(_Event):
    """The target's endpoints reach each other, but nobody else, and nobody else reaches them."""

    action: Literal["partition"]
    duration_s: Duration | None = None


class Flap(_Event):
    """The links of the target go down `count` times, once a period, for a share of it."""

    action: Literal["flap"]
    period_s: Duration
    down_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    count: Annotated[int, Field(ge=1, le=10_000)]


class Degrade(_Event):
    """The links of the target have another profile, or get worse by factors, or both."""

    action: Literal["degrade"]
    duration_s: Duration | None = None
    profile: Name | None = None
    delay_factor: Annotated[float, Field(ge=0, le=1_000)] = 1.0
    rate_factor: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    loss: Share = 0.0


class Heal(_Event):
    """Whatever began before ends for the target."""

    action: Literal["heal"]


Event = Annotated[
    Cut | CoordinatorOutage | Partition | Flap | Degrade | Heal, Field(discriminator="action")
]  # fmt: skip


class Scenario(Model):
    """A timeline; `duration_s` is when it is over and everything is healed."""

    name: Name = "unnamed"
    title: str = ""
    duration_s: Duration
    outages: bool = False
    """Whether links also fail by themselves, as their profiles' `outages` say."""
    events: Annotated[tuple[Event, ...], Field(max_length=10_000)] = ()

    @model_validator(mode="after")
    def _within(self) -> Self:
        for event in self.events:
            if event.at_s > self.duration_s:
                raise ValueError(f"{event.action} at {event.at_s:g} s; expected within duration_s, {self.duration_s:g}")
        return self


@dataclass(frozen=True, slots=True)
class LinkState:
    """What one link does now."""

    profile: LinkProfile
    is_up: bool = True
    group: int = 0
    """Endpoints of different groups do not reach each other."""

    def reaches(self, other: LinkState) -> bool:
        """Whether packets between the two links' endpoints pass at all."""
        return self.is_up and other.is_up and self.group == other.group


NetworkState = Mapping[str, LinkState]
"""All links by the name of their endpoint."""


@dataclass(frozen=True, slots=True)
class Step:
    """From `at_s` on the network is in `state`; `what` tells what began and what ended."""

    at_s: float
    state: NetworkState
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class _Effect:
    start_s: float
    text: str
    ends_s: Mapping[str, float]
    """When it ends, by endpoint; a later heal brings it forward."""
    cuts: bool = False
    group: int | None = None
    degrade: Degrade | None = None

    @property
    def count(self) -> int:
        """How many endpoints it holds for."""
        return sum(end_s > self.start_s for end_s in self.ends_s.values())

    @property
    def description(self) -> str:
        return f"{self.text} ({self.count} endpoint{'' if self.count == 1 else 's'})"

    def holds(self, endpoint: str, at_s: float) -> bool:
        return self.start_s <= at_s < self.ends_s.get(endpoint, -math.inf)


def initial_state(network: Network, profiles: dict[str, LinkProfile]) -> NetworkState:
    """Every link up with its profile.  Raises InvalidDataError for a profile that is not there."""
    return {name: LinkState(profile) for name, profile in network.base_profiles(profiles).items()}


def timeline(
    scenario: Scenario, network: Network, profiles: dict[str, LinkProfile], *, rng: Random, speed: float = 1.0
) -> Iterator[Step]:
    """
    The states of the network in the order of time; the first is at 0 s, the last (all healed) at the scenario's end.

    `speed` divides every time.  `rng` chooses the endpoints of `share:` targets and the moments of outages.
    Raises InvalidDataError, at once, where the scenario names an area, endpoint or profile that is not there.
    """
    base = initial_state(network, profiles)
    effects = _effects(scenario, network, profiles, rng)
    if scenario.outages:
        effects += _outages(network, base, scenario.duration_s, rng)
    return _steps(base, effects, profiles, scenario.duration_s, speed)


def _steps(
    base: NetworkState, effects: Sequence[_Effect], profiles: dict[str, LinkProfile], duration_s: float, speed: float
) -> Iterator[Step]:
    # One copy of the state a step, and only the links that change are computed anew: 10,000 links for a day are fine.
    changes: dict[float, set[str]] = {0.0: set()}
    effects_of: dict[str, list[_Effect]] = {}
    begins: dict[float, list[_Effect]] = {}
    ends: dict[float, dict[_Effect, None]] = {}
    for effect in effects:
        for name, end_s in effect.ends_s.items():
            if end_s > effect.start_s:
                effects_of.setdefault(name, []).append(effect)
                changes.setdefault(effect.start_s, set()).add(name)
                changes.setdefault(end_s, set()).add(name)
                ends.setdefault(end_s, {})[effect] = None
        if effect.count:
            begins.setdefault(effect.start_s, []).append(effect)
    state = dict(base)
    for at_s in sorted(moment for moment in changes if moment < duration_s):
        state = dict(state)
        for name in changes[at_s]:
            state[name] = _link(name, base[name], effects_of[name], profiles, at_s)
        texts = [f"end of {effect.text}" for effect in ends.get(at_s, {})]
        texts += [effect.description for effect in begins.get(at_s, [])]
        yield Step(at_s / speed, state, "; ".join(texts) or "start")
    yield Step(duration_s / speed, base, "end: all healed")


def _effects(scenario: Scenario, network: Network, profiles: dict[str, LinkProfile], rng: Random) -> list[_Effect]:
    effects: list[_Effect] = []
    for group, event in enumerate(sorted(scenario.events, key=lambda event: event.at_s), start=1):
        names = select(event.target, network, rng)
        text = f"{event.action} {event.target}"
        if isinstance(event, Heal):
            effects = [_healed(effect, names, event.at_s) for effect in effects]
            continue
        if isinstance(event, Flap):
            for turn in range(event.count):
                start_s = event.at_s + turn * event.period_s
                ends_s = dict.fromkeys(names, start_s + event.period_s * event.down_share)
                effects.append(_Effect(start_s, text, ends_s, cuts=True))
            continue
        end_s = scenario.duration_s if event.duration_s is None else event.at_s + event.duration_s
        effect = _Effect(event.at_s, text, dict.fromkeys(names, end_s))
        if isinstance(event, Partition):
            effect = replace(effect, group=group)
        elif isinstance(event, Degrade):
            if event.profile is not None and event.profile not in profiles:
                raise InvalidDataError(
                    f"{scenario.name}: degrade: found profile {event.profile}; expected one of {', '.join(profiles)}"
                )
            effect = replace(effect, degrade=event)
        else:
            effect = replace(effect, cuts=True)
        effects.append(effect)
    return effects


def _healed(effect: _Effect, names: Iterable[str], at_s: float) -> _Effect:
    ends_s = dict(effect.ends_s)
    for name in names:
        if name in ends_s and effect.start_s < at_s < ends_s[name]:
            ends_s[name] = at_s
        elif name in ends_s and effect.start_s >= at_s:  # a later turn of a flap
            ends_s[name] = effect.start_s
    return replace(effect, ends_s=ends_s)


def _outages(network: Network, base: NetworkState, horizon_s: float, rng: Random) -> list[_Effect]:
    effects: list[_Effect] = []
    for endpoint in network.endpoints:
        outages = base[endpoint.name].profile.outages
        at_s = 0.0
        while outages is not None:
            at_s += rng.expovariate(1 / outages.mean_interval_s)
            if at_s >= horizon_s:
                break
            end_s = at_s + rng.uniform(outages.duration_min_s, outages.duration_max_s)
            effects.append(_Effect(at_s, f"outage endpoint:{endpoint.name}", {endpoint.name: end_s}, cuts=True))
            at_s = end_s
    return effects


def _link(
    name: str, base: LinkState, effects: Sequence[_Effect], profiles: dict[str, LinkProfile], at_s: float
) -> LinkState:
    state = base
    for effect in (each for each in effects if each.holds(name, at_s)):
        if effect.degrade is not None:
            worse = effect.degrade
            profile = state.profile if worse.profile is None else profiles[worse.profile]
            profile = profile.degraded(
                delay_factor=worse.delay_factor, rate_factor=worse.rate_factor, loss=worse.loss
            )  # fmt: skip
            state = replace(state, profile=profile)
        if effect.cuts:
            state = replace(state, is_up=False)
        if effect.group is not None:
            state = replace(state, group=effect.group)
    return state


def select(target: str, network: Network, rng: Random) -> list[str]:
    """
    The endpoints that a target means, in the network's order.

    `first-area` is the area of the first endpoint that is not the coordinator; `share:0.3` draws 30 % of all but the
    coordinator, at least one.  Raises InvalidDataError where nothing is meant.
    """
    kind, _, value = target.partition(":")
    others = [endpoint for endpoint in network.endpoints if endpoint.name != COORDINATOR]
    chosen: list[Endpoint] = []
    if kind == "all":
        chosen = list(network.endpoints)
    elif kind == "coordinator":
        chosen = [endpoint for endpoint in network.endpoints if endpoint.name == COORDINATOR]
    elif kind == "first-area":
        chosen = [endpoint for endpoint in others if endpoint.area == others[0].area]
    elif kind == "area":
        chosen = [endpoint for endpoint in network.endpoints if endpoint.area == value]
    elif kind == "endpoint":
        chosen = [endpoint for endpoint in network.endpoints if endpoint.name == value]
    elif kind == "share" and 0 < _number(value) <= 1 and others:
        drawn = {endpoint.name for endpoint in rng.sample(others, max(1, round(_number(value) * len(others))))}
        chosen = [endpoint for endpoint in others if endpoint.name in drawn]
    if not chosen:
        areas = ", ".join(dict.fromkeys(endpoint.area for endpoint in network.endpoints))
        names = ", ".join(endpoint.name for endpoint in network.endpoints[:8])
        raise InvalidDataError(
            f"target {target} means no endpoint; expected an area of {areas}, or an endpoint of {names}"
        )
    return [endpoint.name for endpoint in chosen]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def load_scenarios() -> dict[str, Scenario]:
    """The shipped scenarios by name."""
    folder = resources.files("netem") / "data" / "scenarios"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    parsed = (parse_scenario((folder / name).read_text(encoding="utf-8"), name) for name in names)
    return {scenario.name: scenario for scenario in parsed}


def load_scenario(source: str | Path) -> Scenario:
    """A shipped scenario by its name, or one of a TOML file.  Raises InvalidDataError."""
    shipped = load_scenarios()
    if str(source) in shipped:
        return shipped[str(source)]
    if not Path(source).suffix:
        raise InvalidDataError(f"found scenario {source}; expected one of {', '.join(shipped)}, or a TOML file")
    return parse_scenario(read(Path(source)), str(source))


def parse_scenario(text: str, origin: str) -> Scenario:
    """A scenario of a TOML document; its name is the file's.  Raises InvalidDataError."""
    name = re.sub(r"[^a-z0-9]+", "-", Path(origin).stem.lower()).strip("-")[:32]
    document = {"name": name or "unnamed", **parse_toml(text, origin)}
    return validated(Scenario, document, origin)
