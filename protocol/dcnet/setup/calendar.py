"""
When epochs may be: the gateway's own rules for the calendar of a call, by its own clock.

Rounds that are a second long give every household's power away as soon as somebody is left out of one (an interval of
15 minutes hides it).  A call far in the future, or with a number that no later call exceeds, bars a gateway for good;
one that lies in the past has a reading contributed under a time of the coordinator's choice.  So none of these is the
coordinator's word:

- A period is an interval of whole quarter hours.  Metering time is real time, and intervals are counted from midnight
  UTC.  A grid of the coordinator's choice could lie a minute beside the last epoch's, as one of 901 s does that is
  counted from midnight, too: the first contribution would then be the energy of that minute.
- An epoch begins within 26 hours, is not over, has 16 rounds or more and lasts 26 hours at most: a day's masks and one
  day's delay are what a gateway commits to.
- Its number is at most the count of quarter hours since 1970.  Numbers only go up (the security module remembers the
  newest), and an epoch lasts hours, so the largest number that is accepted bars nobody for longer than an hour.
- It begins at least 16 intervals after the newest epoch that the gateway has a layout of began.  A layout says who is
  there, and a first round brings members together anew; both are what rosters may not do often.

A time lapse (an interval of metering time in a shorter period of real time) is for laboratories and stands in the
node's own configuration.  Every duration then counts in metering time, where one interval is `interval_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol import wire
from protocol.dcnet.setup.epoch import registration_grid
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import QUARTER_HOUR_S, RegistrationGrid

_HOUR_S = 3600
_LAPSE_OFFSET_S_MAX = 100 * 366 * 24 * _HOUR_S  # a time lapse may show any season, and no year that overflows a date


@dataclass(frozen=True, slots=True)
class CalendarPolicy:
    """
    What a gateway insists on; durations are metering time.

    Raising `rounds_min` or lowering `duration_s_max` refuses more calls.  Lowering `rounds_min` lets a coordinator lay
    out rings more often, and each layout tells who was there.  `time_lapse` lets metering time run faster than real
    time, for laboratories: readings of a second are no longer hidden by the length of an interval.
    """

    rounds_min: int = 16
    duration_s_max: int = 26 * _HOUR_S
    lead_s_max: int = 26 * _HOUR_S
    time_lapse: bool = False


def check_calendar(call: wire.EpochCall, policy: CalendarPolicy, now_s: float) -> None:
    """
    Raise RemoteProtocolError unless the call's times suit our policy; `now_s` is the own clock (Unix, s).

    Reasons: `short_interval`, `time_lapse`, `wrong_metering_time`, `shifted_grid`, `short_epoch`, `long_epoch`,
    `distant_epoch`, `past_epoch`, `epoch_number`.
    """
    grid = registration_grid(call)
    if call.interval_s < QUARTER_HOUR_S:
        raise RemoteProtocolError(
            "short_interval", f"intervals of {call.interval_s} s, expected {QUARTER_HOUR_S} or more"
        )
    _check_lapse(grid, policy, now_s)
    if call.rounds < policy.rounds_min:
        raise RemoteProtocolError("short_epoch", f"{call.rounds} rounds, our policy asks for {policy.rounds_min}")
    if call.rounds * call.interval_s > policy.duration_s_max:
        hours = policy.duration_s_max / _HOUR_S
        raise RemoteProtocolError("long_epoch", f"{call.rounds} rounds, our policy allows {hours:g} h")
    lead_s = (grid.time_s(0) - now_s) * call.interval_s / grid.period_s
    if lead_s > policy.lead_s_max:
        raise RemoteProtocolError("distant_epoch", f"it begins {lead_s / _HOUR_S:.0f} h from now")
    if grid.time_s(call.rounds) <= now_s:
        raise RemoteProtocolError("past_epoch", "it was over when it was called")
    if call.epoch > now_s / min(grid.period_s, QUARTER_HOUR_S):
        raise RemoteProtocolError("epoch_number", "a number that this many epochs cannot have reached")


@dataclass(frozen=True, slots=True)
class NewestEpoch:
    """The newest epoch of which a gateway has a layout: its number, and its start in metering time (Unix, s)."""

    epoch: int
    start_s: int


def check_start(call: wire.EpochCall, policy: CalendarPolicy, newest: NewestEpoch | None) -> None:
    """Raise RemoteProtocolError (`early_epoch`) for an epoch that begins too soon after `newest` began."""
    if newest is None or newest.epoch == call.epoch:
        return
    least_s = newest.start_s + policy.rounds_min * call.interval_s
    if call.interval_start_s < least_s:
        intervals = (least_s - call.interval_start_s) / call.interval_s
        raise RemoteProtocolError(
            "early_epoch",
            f"it begins {intervals:g} intervals too early, expected {policy.rounds_min} after the start of epoch"
            f" {newest.epoch}",
        )


def _check_lapse(grid: RegistrationGrid, policy: CalendarPolicy, now_s: float) -> None:
    if policy.time_lapse:
        if grid.period_s > grid.interval_s:
            raise RemoteProtocolError("time_lapse", "metering time that runs slower than real time")
        if abs(grid.metering_start_s - now_s) > _LAPSE_OFFSET_S_MAX:
            raise RemoteProtocolError("wrong_metering_time", "metering time is a century off our clock")
    elif grid.period_s != grid.interval_s:
        raise RemoteProtocolError(
            "time_lapse",
            f"intervals of {grid.interval_s} s in {grid.period_s:g} s; a node takes part in a time lapse by its own"
            " configuration only (node.policy.time_lapse)",
        )
    elif grid.metering_start_s * 1000 != grid.start_ms:
        offset_s = grid.metering_start_s - grid.time_s(0)
        raise RemoteProtocolError("wrong_metering_time", f"metering time is {offset_s:g} s off real time")
    elif grid.metering_start_s % grid.interval_s or grid.interval_s % QUARTER_HOUR_S:
        raise RemoteProtocolError(
            "shifted_grid", f"expected intervals of whole quarter hours that begin at a multiple of {grid.interval_s} s"
        )
