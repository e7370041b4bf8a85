"""
Meter profile: how the gateway reads a meter, and within which limits its values are possible.

Follows the meter profile ("Zaehlerprofil") of BSI TR-03109-1; the choice of fields is our reading, since the normative
annexes are not public in a machine-readable form.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protocol.profiles.base import DeviceName, Identifier, ObisText, Timed

RegistrationPeriod = Literal[1, 10, 60, 300, 900, 1800, 3600]
"""Seconds from one registration time to the next: 900 for electricity, 3600 for gas, heat and water."""

BILLABLE_PERIOD_MIN_S = 900
"""Shorter periods are shown and never billed (PTB-A 50.8)."""


class MeterProfile(Timed):
    """
    One meter on the LMN.

    `fuse_rating_a` and `phase_count` bound what the registers can grow by; None where no bound is known.
    `display_interval_s` is how often the consumer interface gets a value while somebody looks.
    """

    id: Identifier
    device: DeviceName
    protocol: Literal["sml", "dlms", "lks1", "iec62056-21", "p1", "mbus", "wmbus", "s0", "modbus"]
    registers: Annotated[tuple[ObisText, ...], Field(min_length=1, max_length=32)]
    is_bidirectional: bool = False
    is_encrypted: bool = True
    registration_period_s: RegistrationPeriod = 900
    display_interval_s: Annotated[int, Field(ge=1, le=900)] = 60
    fuse_rating_a: Annotated[int, Field(ge=1, le=10_000)] | None = None
    phase_count: Literal[1, 3] = 3

    @model_validator(mode="after")
    def _registers_once(self) -> Self:
        if len(set(self.registers)) != len(self.registers):
            raise ValueError("registers: a register appears twice")
        return self
