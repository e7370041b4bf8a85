"""
Parameters of the tariff use cases TAF 1 to 14 (BSI TR-03109-1), one model each; `taf` tells them apart.

What each computes from the metering log stands in node.taf.  Events of TAF 5, requests of TAF 9, controls of TAF 11 and
payments of TAF 12 are parameters too: whoever orders one has the administrator sign the next set, so that a result
follows from the signed profile and the log alone, and nobody else can change what is billed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from protocol.metering.interval import QUARTER_HOUR_S
from protocol.profiles.base import Identifier, ObisText, Profile
from protocol.profiles.calendar import STAGE_COUNT_MAX, Stage, TariffCalendar

ORDER_COUNT_MAX = 4_096
"""Events, requests or controls of one profile: a month of quarter hours, and more."""

Price = Annotated[int, Field(ge=-(10**9), le=10**9)]


def _ascending(values: tuple[Any, ...], what: str) -> None:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"{what}: expected them ascending, each once")


class DataSparing(Profile):
    """TAF 1: register values at the ends of the billing period, nothing between."""

    taf: Literal[1]


class TimeVariable(Profile):
    """TAF 2: energy by stages of a tariff calendar."""

    taf: Literal[2]
    calendar: TariffCalendar


class LoadVariable(Profile):
    """TAF 3: stage 1 up to and without the first threshold of an interval's mean power (W), and so on."""

    taf: Literal[3]
    thresholds_w: Annotated[tuple[int, ...], Field(min_length=1, max_length=STAGE_COUNT_MAX - 1)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _ascending(self.thresholds_w, "thresholds_w")
        return self


class ConsumptionVariable(Profile):
    """TAF 4: stage 1 up to the first threshold of energy in the billing period (Wh), and so on; splits are exact."""

    taf: Literal[4]
    thresholds_wh: Annotated[tuple[int, ...], Field(min_length=1, max_length=STAGE_COUNT_MAX - 1)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _ascending(self.thresholds_wh, "thresholds_wh")
        if self.thresholds_wh[0] <= 0:
            raise ValueError("thresholds_wh: expected more than 0")
        return self


class StageEvent(Profile):
    """From `at` on the stage is `stage`, as the market participant `source` ordered."""

    at: AwareDatetime
    stage: Stage
    source: Identifier


class EventVariable(Profile):
    """TAF 5: the stage that the last event set; `default_stage` before the first."""

    taf: Literal[5]
    default_stage: Stage
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=STAGE_COUNT_MAX)]
    event_sources: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=8)]
    events: Annotated[tuple[StageEvent, ...], Field(max_length=ORDER_COUNT_MAX)] = ()

    @model_validator(mode="after")
    def _known(self) -> Self:
        _ascending(self.stages, "stages")
        if self.default_stage not in self.stages:
            raise ValueError("default_stage: not among the stages")
        _ascending(tuple(each.at for each in self.events), "events")
        if unknown := sorted({each.stage for each in self.events} - set(self.stages)):
            raise ValueError(f"events: stages {unknown}, which are not among the stages")
        if strangers := sorted({each.source for each in self.events} - set(self.event_sources)):
            raise ValueError(f"events: {', '.join(strangers)} not among the event_sources")
        return self


class OnDemand(Profile):
    """TAF 6: daily register values of the last `days` days, when the market participant asks."""

    taf: Literal[6]
    days: Annotated[int, Field(ge=1, le=60)] = 42


class LoadProfile(Profile):
    """TAF 7: every registered value of the billing period."""

    taf: Literal[7]


class ExtremeValues(Profile):
    """TAF 8: the `count` largest and smallest mean powers of intervals, with their times."""

    taf: Literal[8]
    count: Annotated[int, Field(ge=1, le=31)] = 1


class ActualFeedIn(Profile):
    """TAF 9: the present feed-in every `period_s`, and at the moments `requests`, for which the participant asked."""

    taf: Literal[9]
    period_s: Annotated[int, Field(ge=60, le=86_400)] | None = None
    requests: Annotated[tuple[AwareDatetime, ...], Field(max_length=ORDER_COUNT_MAX)] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _ascending(self.requests, "requests")
        return self


class Limit(Profile):
    """An event when a register (mantissas of `scaler`) leaves [low, high]; over only behind `hysteresis`."""

    obis: ObisText
    scaler: Annotated[int, Field(ge=-9, le=9)]
    low: int | None = None
    high: int | None = None
    hysteresis: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("expected low, high or both")
        if self.low is not None and self.high is not None and self.high - self.low <= 2 * self.hysteresis:
            raise ValueError("high: expected more than low and twice the hysteresis")
        return self


class GridState(Profile):
    """
    TAF 10: values of the grid's state every `period_s`, and an event when one leaves its limits.

    `registers` are those beside the profile's own: voltages, currents, phase angles, frequency, power.
    """

    taf: Literal[10]
    period_s: Annotated[int, Field(ge=60, le=86_400)]
    registers: Annotated[tuple[ObisText, ...], Field(max_length=32)] = ()
    limits: Annotated[tuple[Limit, ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        for what, codes in (("registers", self.registers), ("limits", tuple(each.obis for each in self.limits))):
            if len(set(codes)) != len(codes):
                raise ValueError(f"{what}: a register appears twice")
        return self


class Control(Profile):
    """The controllable system `system` was limited to `limit_w` (W; None: switched off) from `begins` to `ends`."""

    system: Identifier
    begins: AwareDatetime
    ends: AwareDatetime
    limit_w: Annotated[int, Field(ge=0, le=10**9)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ends <= self.begins:
            raise ValueError("ends: expected a moment after begins")
        return self


class ControlEvents(Profile):
    """TAF 11: when controllable systems were limited, with the register values at that time."""

    taf: Literal[11]
    controls: Annotated[tuple[Control, ...], Field(max_length=ORDER_COUNT_MAX)] = ()


class Prepaid(Profile):
    """
    TAF 12: credit that energy uses up.

    `prices` are by stage, integers of 10^`price_scaler` currency for one Wh; credit is counted in the same unit.
    `paid_credit` is all that was ever paid in, so a set that comes twice or late pays in nothing twice.
    """

    taf: Literal[12]
    calendar: TariffCalendar
    price_scaler: Annotated[int, Field(ge=-9, le=0)]
    prices: dict[Stage, Annotated[int, Field(ge=0, le=10**9)]]
    warning_credit: Annotated[int, Field(ge=0, le=10**15)]
    paid_credit: Annotated[int, Field(ge=0, le=10**15)] = 0

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if tuple(sorted(self.prices)) != self.calendar.stages:
            raise ValueError("prices: expected one for each stage of the calendar")
        return self


class Visualisation(Profile):
    """TAF 13: the consumer's values to a portal over the WAN, those of each `period_s` together."""

    taf: Literal[13]
    period_s: Annotated[int, Field(ge=300, le=86_400)] = QUARTER_HOUR_S


class HighFrequency(Profile):
    """TAF 14: values as the meter gives them, at least `period_s` apart; never billed."""

    taf: Literal[14]
    period_s: Annotated[int, Field(ge=1, le=60)]


UseCase = Annotated[
    DataSparing
    | TimeVariable
    | LoadVariable
    | ConsumptionVariable
    | EventVariable
    | OnDemand
    | LoadProfile
    | ExtremeValues
    | ActualFeedIn
    | GridState
    | ControlEvents
    | Prepaid
    | Visualisation
    | HighFrequency,
    Field(discriminator="taf"),
]
