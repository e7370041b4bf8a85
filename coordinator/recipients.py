"""
Which market participants get which totals: `[[coordinator.recipients]]`, and the aggregate schemas that follow from it.

What is configured here goes out with every call, where each gateway holds it against its signed profiles; so this list
asks, and the profiles decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from coordinator.config_section import ConfigSection
from protocol.dcnet.setup.schema import RECIPIENTS_MAX, Schema
from protocol.profiles.base import AreaName, Fingerprint, Identifier, ObisText


class TotalsRecipient(ConfigSection):
    """
    A market participant that gets totals.

    A gateway contributes only where its profiles name all who get a total.
    """

    participant: Identifier
    """Its name in the recipients of processing profiles."""

    areas: tuple[AreaName, ...] = ()
    """Areas whose totals it gets. None: all of them."""

    registers: tuple[ObisText, ...] = ()
    """Registers whose totals it gets, as OBIS codes such as 1-0:1.8.0*255. None: all that totals hold."""

    certificates: Annotated[tuple[Fingerprint, ...], Field(max_length=8)] = ()
    """SHA-256 of its TLS certificates, 64 hexadecimal digits each: whoever shows one of them at `web.totals` is
    this participant. Take out one that is revoked. None: it fetches nothing there."""

    def gets(self, area: str, obis: str) -> bool:
        """Whether it gets the total of a register of an area."""
        return (not self.areas or area in self.areas) and (not self.registers or obis in self.registers)


def with_recipients(schema: Schema, recipients: Sequence[TotalsRecipient], area: str) -> Schema:
    """The schema of an area: the same totals, each with whom it is for."""
    return Schema(
        tuple(
            slot if slot.obis is None else replace(slot, recipients=_recipients_of(recipients, area, slot.obis))
            for slot in schema.slots
        )
    )


def check_recipients(schema: Schema, recipients: Sequence[TotalsRecipient], areas: Sequence[str]) -> None:
    """Raise ValueError where a total of an area is for nobody or for too many, or a register is in no total."""
    held = [slot.obis for slot in schema.slots if slot.obis is not None]
    for each in recipients:
        if unknown := set(each.registers).difference(held):
            raise ValueError(f"recipients of registers that totals hold ({', '.join(held)}), not of {min(unknown)}")
    for area in areas:
        for obis in held:
            if not 0 < len(_recipients_of(recipients, area, obis)) <= RECIPIENTS_MAX:
                raise ValueError(
                    f"1 to {RECIPIENTS_MAX} recipients of register {obis} of area {area}: gateways contribute to no"
                    " total that is for nobody (power = false in [coordinator.epoch] leaves power out)"
                )


def check_distinct(recipients: Sequence[TotalsRecipient]) -> None:
    """Raise ValueError where a participant, or a certificate, stands in two entries."""
    names = [each.participant for each in recipients]
    certificates = [certificate for each in recipients for certificate in each.certificates]
    if len(set(names)) != len(names) or len(set(certificates)) != len(certificates):
        raise ValueError("recipients of different participants, with different certificates")


def _recipients_of(recipients: Sequence[TotalsRecipient], area: str, obis: str) -> tuple[str, ...]:
    return tuple(sorted(each.participant for each in recipients if each.gets(area, obis)))
