"""
The profile set of gateways that contribute to rings and deliver nothing else, for every place that starts a network.

Its recipient gets totals alone, so no certificate of it is named: no gateway ever calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from protocol.metering.obis import Obis

ENERGIES = (Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255))
GRID_OPERATOR = "grid-operator"
_TIMED = {"valid_from": "2026-01-01T00:00:00Z"}
_NOBODY = "00" * 32


def ring_profiles(registers: Sequence[Obis] = ENERGIES, protocol: str = "sml", version: int = 1) -> dict[str, Any]:
    """A template (`protocol.profiles.template`): quarter-hourly totals of registers of each gateway's first meter."""
    return {
        "gateway": "{gateway}", "version": version, "issued_at": "2026-06-01T00:00:00Z",
        "meters": [ring_meter(registers, protocol)],
        "processing": ring_processing(registers),
        "wan": [ring_wan()],
    }  # fmt: skip


def ring_meter(registers: Sequence[Obis], protocol: str = "sml") -> dict[str, Any]:
    """The meter profile `m` of a gateway's first meter."""
    codes = [str(each) for each in registers]
    return _TIMED | {"id": "m", "device": "{gateway}/0", "protocol": protocol, "registers": codes}


def ring_processing(registers: Sequence[Obis]) -> list[dict[str, Any]]:
    """For each register of meter `m` a processing profile, whose recipient gets totals."""
    return [
        _TIMED | {
            "id": f"ring{index}", "metering_point": f"DE{'0' * 23}{{number}}", "obis": str(obis),
            "meters": [{"meter": "m"}], "use_case": {"taf": 7},
            "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
            "recipients": [{"participant": GRID_OPERATOR, "communication": "totals", "delivery": "aggregated"}],
        }
        for index, obis in enumerate(registers)
    ]  # fmt: skip


def ring_wan() -> dict[str, Any]:
    """The WAN profile `totals` of whom the totals are for."""
    return _TIMED | {
        "id": "totals", "role": "participant", "uri": "https://localhost:7381",
        "tls_certificate": _NOBODY, "encryption_certificate": _NOBODY, "signature_certificate": _NOBODY,
    }  # fmt: skip
