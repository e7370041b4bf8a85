"""
Parameters of the tariff use cases TAF 1 to 14 (BSI TR-03109-1), one model each; `taf` tells them apart.

What each computes from the metering log stands in node.taf.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protocol.profiles.base import Identifier, ObisText, Profile
from protocol.profiles.calendar import STAGE_COUNT_MAX, Stage, TariffCalendar

Price = Annotated[int, Field(ge=-(10**9), le=10**9)]


def _ascending(values: tuple[int, ...], what: str) -> None:
    if sorted(set(values)) != list(values):
        raise ValueError(f"{what}: expected ascending numbers, each once")


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


class EventVariable(Profile):
    """TAF 5: the stage that the last event set; `default_stage` before the first."""

    taf: Literal[5]
    default_stage: Stage
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=STAGE_COUNT_MAX)]
    event_sources: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=8)]

    @model_validator(mode="after")
    def _known(self) -> Self:
        _ascending(self.stages, "stages")
        if self.default_stage not in self.stages:
            raise ValueError("default_stage: not among the stages")
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
    """TAF 9: the present feed-in, when the market participant asks or every `period_s`."""

    taf: Literal[9]
    period_s: Annotated[int, Field(ge=60, le=86_400)] | None = None


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
    """TAF 10: values of the grid's state every `period_s`, and an event when one leaves its limits."""

    taf: Literal[10]
    period_s: Annotated[int, Field(ge=60, le=86_400)]
    limits: Annotated[tuple[Limit, ...], Field(max_length=32)] = ()


class ControlEvents(Profile):
    """TAF 11: when controllable systems were limited, with the register values at that time."""

    taf: Literal[11]


class Prepaid(Profile):
    """
    TAF 12: credit that energy uses up.

    `prices` are by stage, integers of 10^`price_scaler` currency for one Wh; credit is counted in the same unit.
    """

    taf: Literal[12]
    calendar: TariffCalendar
    price_scaler: Annotated[int, Field(ge=-9, le=0)]
    prices: dict[Stage, Annotated[int, Field(ge=0, le=10**9)]]
    warning_credit: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if tuple(sorted(self.prices)) != self.calendar.stages:
            raise ValueError("prices: expected one for each stage of the calendar")
        return self


class Visualisation(Profile):
    """TAF 13: the consumer's values to a portal over the WAN."""

    taf: Literal[13]


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
