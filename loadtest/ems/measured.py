"""From what was noted in a run to its result: spans, latencies, recovery, and what must not be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from loadtest.ems.ems import Applied, Command, Ems, reactions
from loadtest.ems.freshness import Arrival, freshness, recovery_s, teeth
from loadtest.ems.limits import PowerLimit, State
from loadtest.ems.meter import PUSH_S, HouseholdMeter
from loadtest.ems.options import Option, Source
from loadtest.ems.readers import POLL_S
from loadtest.ems.result import Latency, Result, latencies

COLD_S_MAX = 50.0
"""What the paper names for establishing a tunnel again."""
FOLLOW_S = 10.0
"""For devices to follow a limit that has changed."""
HUNG_S = 5.0
"""A command that took longer had no way for a while."""
AGE_SLACK_S = 5.0
"""For the way of a value to the EMS, on a machine that has other things to do."""
_USUAL_FACTOR, _USUAL_S = 1.5, 1.0
_CURVE_POINTS_MAX = 3_000


@dataclass(slots=True)
class Spans:
    """When was what (Unix, s): undisturbed from `began_s` to `calm_s`, without the WAN from `cut_s` to `healed_s`."""

    began_s: float
    calm_s: float
    cut_s: float = 0.0
    healed_s: float = 0.0
    stopped_s: float | None = None
    ends_s: float = 0.0
    cpu_s: float = 0.0
    octets: dict[str, int] = field(default_factory=dict)


def _usual_s(arrivals: Sequence[Arrival], spans: Spans) -> float:
    """An age that would surprise nobody."""
    oldest = max((end for _, end in teeth(arrivals, spans.began_s, spans.calm_s)), default=0.0)
    return _USUAL_FACTOR * oldest + _USUAL_S


def values_recovery(arrivals: Sequence[Arrival], spans: Spans, to_s: float) -> float | None:
    """How long after the cut an EMS had values as usual; 0 where it never had older ones, None: not by `to_s`."""
    usual_s = _usual_s(arrivals, spans)
    oldest = max((end for _, end in teeth(arrivals, spans.cut_s, to_s)), default=usual_s + 1)
    return 0.0 if oldest <= usual_s else recovery_s(arrivals, spans.healed_s, usual_s)


def commands_recovery(commands: Iterable[Command], spans: Spans) -> float | None:
    """How long after the cut a command was accepted again; 0 where none had failed or hung, None: not yet."""
    during = [each for each in commands if each.issued_s < spans.healed_s and each.done_s >= spans.cut_s]
    if during and all(each.is_accepted and each.done_s - each.issued_s < HUNG_S for each in during):
        return 0.0
    done = [each.done_s for each in commands if each.is_accepted and each.done_s >= spans.healed_s]
    return min(done) - spans.healed_s if done else None


def _by_actuator(ems: Ems) -> dict[str, list[Command]]:
    found: dict[str, list[Command]] = {}
    for each in ems.commands:
        found.setdefault(each.actuator, []).append(each)
    return found


def recoveries(parties: Mapping[str, Ems], spans: Spans, to_s: float) -> dict[str, float | None]:
    """By what recovered."""
    found: dict[str, float | None] = {}
    for name, ems in parties.items():
        found[f"values, {name} EMS"] = values_recovery(ems.arrivals, spans, to_s)
        for actuator, commands in _by_actuator(ems).items():
            found[f"commands, {actuator}"] = commands_recovery(commands, spans)
    return found


def is_recovered(parties: Iterable[Ems], spans: Spans) -> bool:
    """Whether everybody has new values, and every actuator has accepted a command, since the cut ended."""
    return all(
        any(one.at_s >= spans.healed_s and one.at_s - one.measured_s <= _usual_s(each.arrivals, spans)
            for one in each.arrivals)
        and all(any(one.is_accepted and one.issued_s >= spans.healed_s for one in commands)
                for commands in _by_actuator(each).values())
        for each in parties
    )  # fmt: skip


def cold_s(openings: Sequence[tuple[float, float]], commands: Sequence[Command], spans: Spans) -> list[float]:
    """From beginning to open a tunnel to the first command's answer through it, of those opened before the cut."""
    found = []
    for began_s, opened_s in openings:
        done = [each.done_s for each in commands if each.is_accepted and each.done_s >= opened_s]
        if spans.calm_s <= began_s < spans.cut_s and done:
            found.append(min(done) - began_s)
    return found


def curve(arrivals: Sequence[Arrival], from_s: float, to_s: float) -> list[tuple[float, float]]:
    """The saw tooth of the age as points (s since `from_s`, age in s)."""
    points, at_s = list[tuple[float, float]](), None
    for begin, end in teeth(arrivals, from_s, to_s):
        at_s = max(from_s, next(each.at_s for each in arrivals)) if at_s is None else at_s
        points += [(round(at_s - from_s, 3), round(begin, 3)), (round(at_s + end - begin - from_s, 3), round(end, 3))]
        at_s += end - begin
    return points[-_CURVE_POINTS_MAX:]


def result_of(
    option: Option, at: datetime, spans: Spans, parties: Mapping[str, Ems], applied: Sequence[Applied],
    meter: HouseholdMeter, openings: Sequence[tuple[float, float]], *, limit: PowerLimit | None, nominal_s: float,
    wan: str, emp_values: str, display_s: int = 1,
) -> Result:  # fmt: skip
    """The result of a run that is over."""
    began_s, calm_s = spans.began_s, spans.calm_s
    ordered_s: dict[Source | None, float] = {Source.INBOX: nominal_s, Source.CONSUMER_INTERFACE: max(PUSH_S, display_s)}
    sources = {"local": option.local, "remote": option.remote}
    values = {
        f"{name} EMS": freshness(ems.arrivals, began_s, calm_s, ordered_s.get(sources[name], PUSH_S))
        for name, ems in parties.items()
    }
    commands: dict[str, Latency] = {}
    for ems in parties.values():
        commands |= latencies(ems.commands, began_s, calm_s)
    answered, missed = reactions(applied, meter, began_s, calm_s)
    through = [each for name in ("remote",) if name in parties for each in tunnelled(parties[name])]
    cold = Latency.of(cold_s(openings, through, spans)) if option.uses_tunnel else None
    recovered = recoveries(parties, spans, spans.stopped_s or spans.ends_s)
    result = Result(
        option=option.name, at=at.isoformat(timespec="seconds"), duration_s=round(calm_s - began_s, 1), wan=wan,
        cut_s=round(spans.healed_s - spans.cut_s, 1), emp_values=emp_values if option.remote is Source.INBOX else "",
        values=values, commands=commands, reaction=Latency.of(answered), steps_missed=missed, cold=cold,
        recovery_s=recovered, limit_states=[] if limit is None else [each.value for _, each in limit.changes],
        gateway_cpu_percent=round(100 * spans.cpu_s / (calm_s - began_s), 1),
        wan_bytes_per_s=round(sum(spans.octets.values()) / (calm_s - began_s), 1),
        curves={f"{name} EMS": curve(ems.arrivals, began_s, spans.ends_s) for name, ems in parties.items()},
        cut_span_s=(spans.cut_s - began_s, spans.healed_s - began_s),
        notes=[f"{name}: {what}, {count} times" for name, ems in parties.items()
               for what, count in ems.failures.items()],
        display_s=display_s if option.local is Source.CONSUMER_INTERFACE else None,
    )  # fmt: skip
    failures = [
        *_judged(result, option, spans, parties),
        *([] if limit is None else failsafe_faults(limit, applied, spans)),
    ]
    return replace(result, failures=failures)


def failsafe_faults(limit: PowerLimit, applied: Sequence[Applied], spans: Spans) -> list[str]:
    """
    What was wrong in a cut that outlasts the heartbeat: nothing where it did not.

    The failsafe limit must have come during the cut, every device must keep to it until the WAN's return, and the next
    limit must have ended it.
    """
    began_s = spans.cut_s + limit.heartbeat_timeout_s
    if began_s + FOLLOW_S >= spans.healed_s:
        return []
    states = [(at_s, state) for at_s, state in limit.changes if at_s >= spans.cut_s]
    if not any(state is State.FAILSAFE and at_s <= began_s + FOLLOW_S for at_s, state in states):
        return ["no failsafe limit though the heartbeat was missing"]
    faults = []
    for device in dict.fromkeys(each.device for each in applied):
        own = [each.limit_w for each in applied if each.device == device and each.at_s <= spans.healed_s]
        late = [each.limit_w for each in applied
                if each.device == device and began_s + FOLLOW_S < each.at_s <= spans.healed_s]  # fmt: skip
        if max([*own[-1:], *late], default=0) > limit.failsafe_w:
            faults.append(f"{device}: above the failsafe limit while the heartbeat was missing")
    if limit.state is not State.LIMITED:
        faults.append(f"the failsafe limit was not left: {limit.state.value}")
    return faults


def tunnelled(ems: Ems) -> list[Command]:
    """Commands whose tunnel is opened by the home's box, of which `openings` tells."""
    return [each for each in ems.commands if each.actuator != "OCPP charge point"]


def _judged(result: Result, option: Option, spans: Spans, parties: Mapping[str, Ems]) -> list[str]:
    failures = [f"{name} EMS: {each.unknown} values that the meter never showed" for name, each in parties.items()
                if each.unknown]  # fmt: skip
    failures += [f"{name}: no command was answered" for name, each in result.commands.items() if not each.count]
    failures += [] if result.commands else ["nobody commanded"]
    failures += [f"{name}: not back after the cut" for name, each in result.recovery_s.items() if each is None]
    if option.uses_tunnel and (result.cold is None or result.cold.s_p95 is None or result.cold.s_p95 >= COLD_S_MAX):
        failures.append(f"no cold tunnel carried a command within {COLD_S_MAX:g} s")
    oldest_s = result.values["local EMS"].age_s_max if result.display_s is not None else None
    if oldest_s is not None and oldest_s > (bound_s := (result.display_s or 0) + PUSH_S + POLL_S + AGE_SLACK_S):
        failures.append(f"local EMS: a value of {oldest_s:.1f} s, the display interval allows {bound_s:g} s")
    octets = sum(spans.octets.values())
    if not option.uses_wan and octets:
        failures.append(f"{octets} octets left the home, which this option does not need")
    if spans.stopped_s is not None:
        after = freshness(parties["local"].arrivals, spans.stopped_s, spans.ends_s, PUSH_S)
        if after.count == 0 or after.gaps:
            failures.append("values were missing while the gateway stood still")
    return failures
