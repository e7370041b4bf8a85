"""
Simulated households: what a meter's registers show in any simulated quarter hour, exactly and without a memory.

A household is a few integers drawn from a seed; its registers are a function of the quarter hour index q alone, so the
process that serves the meter and the process that checks the totals agree without talking.  Registers step at quarter
hours and stand still between them (and before q = 0): truth does not hang on the millisecond in which a gateway asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from loadtest.config import MetersConfig, Profile
from loadtest.profiles import QUARTER_HOURS, SHARES, YearShares, year_shares

_DECIMALS_MAX = {"p1": 0, "p1-encrypted": 0}  # kWh with three decimals, by the standard
_REGISTER_TENTH_WH_MAX = 1_000_000_000  # 100,000 kWh: a meter that has been in the cellar for some years


class Registers(NamedTuple):
    """What a meter shows: 1-0:1.8.0 and 1-0:2.8.0 in tenths of a watt hour, 1-0:16.7.0 in watts (feed-in negative)."""

    import_tenth_wh: int
    export_tenth_wh: int
    power_w: int


class SimulatedMeter(Protocol):
    """Anything whose registers are known for every quarter hour."""

    def registers(self, q: int) -> Registers:
        """What the meter shows during quarter hour `q`; any integer is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Household:
    """One household (or shop) with one meter."""

    meter_id: str
    profile: Profile
    annual_wh: int
    import_start_tenth_wh: int
    export_start_tenth_wh: int
    start_quarter_hour: int
    shares: YearShares
    resolution_tenth_wh: int = 1

    def registers(self, q: int) -> Registers:
        """
        Energy up to the end of quarter hour q - 1 and the mean power of it; frozen for q <= 0, at no power.

        Energies have the resolution of the meter's display: what it does not show, nobody knows.

        Power is what the registers' step says (to 0.4 W), so both slots of a total tell the same story.
        """
        q = max(q, 0)
        imported, exported = self._energies_tenth_wh(q)
        before = self._energies_tenth_wh(max(q - 1, 0))
        step_tenth_wh = (imported - before[0]) - (exported - before[1])
        return Registers(imported, exported, step_tenth_wh * 4 // 10)

    def _energies_tenth_wh(self, q: int) -> tuple[int, int]:
        years, quarter = divmod(self.start_quarter_hour + q, QUARTER_HOURS)
        annual_tenth_wh = self.annual_wh * 10
        imported, exported = (
            start + annual_tenth_wh * _flown(shares, years, quarter) // SHARES
            for start, shares in (
                (self.import_start_tenth_wh, self.shares.imported),
                (self.export_start_tenth_wh, self.shares.exported),
            )
        )
        return imported - imported % self.resolution_tenth_wh, exported - exported % self.resolution_tenth_wh


def _flown(sums: Sequence[int], years: int, quarter: int) -> int:
    return years * sums[-1] + sums[quarter]


def households(config: MetersConfig) -> list[Household]:
    """
    The neighbourhood of a configuration; household i depends on the seed and i only, not on how many there are.

    Raises StromkreisError where the load profiles are not installed.
    """
    made = []
    for i in range(config.count):
        profile, protocol = config.profiles[i % len(config.profiles)], config.protocol_of(i)
        draw = Random(f"stromkreis household {config.seed} {i}")
        annual_wh = _annual_wh(draw, profile)
        starts = draw.randrange(_REGISTER_TENTH_WH_MAX), draw.randrange(_REGISTER_TENTH_WH_MAX)
        made.append(
            Household(
                meter_id=f"1STK00{i:08d}",
                profile=profile,
                annual_wh=annual_wh if config.annual_kwh is None else config.annual_kwh * 1_000,
                import_start_tenth_wh=starts[0],
                export_start_tenth_wh=starts[1] if profile == "PV" else 0,
                start_quarter_hour=config.start_quarter_hour,
                shares=year_shares(profile, config.feed_in_percent if profile == "PV" else 0),
                resolution_tenth_wh=10 ** (1 - min(config.register_decimals, _DECIMALS_MAX.get(protocol, 1))),
            )
        )
    return made


def _annual_wh(draw: Random, profile: Profile) -> int:
    """Two draws added: many near the middle, few at the ends, as households are."""
    low, span = (3_000_000, 13_500_000) if profile == "G0" else (1_500_000, 2_250_000)
    return low + draw.randrange(span) + draw.randrange(span)
