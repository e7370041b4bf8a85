"""
TAF 12, prepaid: credit that the energy of each stage uses up, in integers of the profile's price unit.

Energy in the error register is not charged until it is corrected: nobody is cut off for energy whose stage is unknown.
"""

from __future__ import annotations

from dataclasses import replace

from node.taf import taf02
from node.taf.result import ERROR_STAGE, TOTAL_STAGE, Account, Period, Result, Standing
from protocol.errors import LocalProtocolError
from protocol.profiles.use_cases import Prepaid, TimeVariable


def evaluate(parameters: Prepaid, period: Period, opening: Account | None = None) -> Result:
    """
    The account after a period that began with `opening`, None for the first.

    Raises LocalProtocolError for a register whose scaler is so coarse that an amount has no exact value.
    """
    result = taf02.evaluate(TimeVariable(taf=2, calendar=parameters.calendar), period)
    uncharged = (TOTAL_STAGE, ERROR_STAGE)
    used = sum(parameters.prices[each.obis.e] * each.value for each in result.registers if each.obis.e not in uncharged)
    account = opening_account(parameters, period.scaler, opening)
    credit = account.credit - used
    return replace(result, account=Account(credit, account.paid, _standing(parameters, period.scaler, credit)))


def opening_account(parameters: Prepaid, scaler: int, before: Account | None) -> Account:
    """`before` with what was paid in since then.  Raises LocalProtocolError."""
    paid = _in_units(parameters.paid_credit, scaler)
    credit = paid if before is None else before.credit + paid - before.paid
    return Account(credit, paid, _standing(parameters, scaler, credit))


def _in_units(amount: int, scaler: int) -> int:
    """An amount of 10^price_scaler currency in the account's unit."""
    if scaler <= 0:
        return amount * int(10**-scaler)
    units, rest = divmod(amount, int(10**scaler))
    if rest:
        raise LocalProtocolError("the register is too coarse for this amount")
    return units


def _standing(parameters: Prepaid, scaler: int, credit: int) -> Standing:
    if credit <= 0:
        return Standing.USED_UP
    return Standing.LOW if credit <= _in_units(parameters.warning_credit, scaler) else Standing.ENOUGH
