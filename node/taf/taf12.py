"""
TAF 12, prepaid: credit that the energy of each stage uses up, in integers of the profile's price unit.

Energy in the error register is not charged until it is corrected: nobody is cut off for energy whose stage is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from node.taf import taf02
from node.taf.result import ERROR_STAGE, TOTAL_STAGE, Period, Result
from protocol.errors import LocalProtocolError
from protocol.profiles.use_cases import Prepaid, TimeVariable


class TopUp(NamedTuple):
    """Credit that was paid in (Unix, s)."""

    at_s: int
    credit: int


class Standing(Enum):
    """What the credit means for the consumer."""

    ENOUGH = "enough"
    LOW = "low"
    USED_UP = "used-up"


@dataclass(frozen=True, slots=True)
class Account:
    """
    The account at the period's end.

    `credit` counts 10^(price_scaler + register scaler) currency, as prices times mantissas do; it may be negative,
    since it is only known at registration times.
    """

    credit: int
    standing: Standing
    result: Result


def evaluate(parameters: Prepaid, period: Period, opening_credit: int, top_ups: Sequence[TopUp]) -> Account:
    """
    The account after a period that began with `opening_credit`.

    Raises LocalProtocolError for a register whose scaler is so coarse that the warning level has no exact value.
    """
    result = taf02.evaluate(TimeVariable(taf=2, calendar=parameters.calendar), period)
    uncharged = (TOTAL_STAGE, ERROR_STAGE)
    used = sum(parameters.prices[each.obis.e] * each.value for each in result.registers if each.obis.e not in uncharged)
    paid = sum(each.credit for each in top_ups if period.start_s < each.at_s <= period.end_s)
    credit = opening_credit + paid - used
    return Account(credit, _standing(credit, _warning_level(parameters, period.scaler)), result)


def _warning_level(parameters: Prepaid, scaler: int) -> int:
    """`warning_credit`, which counts 10^price_scaler currency, in the account's unit."""
    if scaler <= 0:
        return parameters.warning_credit * int(10**-scaler)
    level, rest = divmod(parameters.warning_credit, int(10**scaler))
    if rest:
        raise LocalProtocolError("the register is too coarse for this warning level")
    return level


def _standing(credit: int, warning_level: int) -> Standing:
    if credit <= 0:
        return Standing.USED_UP
    return Standing.LOW if credit <= warning_level else Standing.ENOUGH
