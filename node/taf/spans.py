"""
Which spans of metering time a profile's results are for.

Most use cases derive once for each billing period.  TAF 13 derives for each of its own periods, TAF 11 and 12 also
within a billing period: when a control has ended, when the credit's standing has changed (node.taf.use_cases).  Spans
follow one another without a hole, so registers of spans add up to those of the billing period.
"""

from __future__ import annotations

from datetime import datetime

from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.use_cases import ControlEvents, Prepaid, Visualisation


def first_start(profile: ProcessingProfile, issued_at: datetime) -> int:
    """
    Where the first span begins (Unix, s).

    The billing period in which the set was issued, or the first that begins while the profile is valid; of TAF 13 the
    period in which it was issued.
    """
    if isinstance(profile.use_case, Visualisation):
        begun_s = max(issued_at.timestamp(), profile.valid_from.timestamp())
        return int(begun_s // profile.use_case.period_s) * profile.use_case.period_s
    billing = profile.billing_period
    index = max(0, billing.index_at(int(issued_at.timestamp())))
    while billing.start_s(index) < profile.valid_from.timestamp():
        index += 1
    return billing.start_s(index)


def span_from(profile: ProcessingProfile, next_start_s: int) -> tuple[int, int]:
    """The first span that begins at `next_start_s` or later: its start and its end (Unix, s)."""
    billing, use_case = profile.billing_period, profile.use_case
    if isinstance(use_case, Visualisation):
        return next_start_s, (next_start_s // use_case.period_s + 1) * use_case.period_s
    index = billing.index_at(next_start_s)
    if isinstance(use_case, ControlEvents):
        ends = [_registration_s(profile, each.ends) for each in use_case.controls]
        return next_start_s, min([billing.start_s(index + 1), *(each for each in ends if each > next_start_s)])
    if isinstance(use_case, Prepaid):
        return next_start_s, billing.start_s(index + 1)
    if billing.start_s(index) < next_start_s:  # the profile has other periods now
        index += 1
    return billing.start_s(index), billing.start_s(index + 1)


def _registration_s(profile: ProcessingProfile, moment: datetime) -> int:
    """The first registration time at a moment or after it."""
    period_s = profile.registration_period_s
    return -int(-moment.timestamp() // period_s) * period_s
