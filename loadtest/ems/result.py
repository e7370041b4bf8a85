"""What was measured of one option, as it is kept in a file and drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtest.ems.ems import Command
from loadtest.ems.freshness import Freshness, percentile
from protocol.errors import StromkreisError


@dataclass(frozen=True, slots=True)
class Latency:
    """Of so many that were answered; times in s, None where there were none."""

    count: int
    s_p50: float | None
    s_p95: float | None
    failed: int = 0

    @classmethod
    def of(cls, values: Sequence[float], failed: int = 0) -> Latency:
        """Of these times."""
        return cls(len(values), percentile(values, 0.5), percentile(values, 0.95), failed)


def latencies(commands: Iterable[Command], from_s: float, to_s: float) -> dict[str, Latency]:
    """From sending to answer, of commands sent in a span, by actuator."""
    chosen = [each for each in commands if from_s <= each.issued_s <= to_s]
    return {
        name: Latency.of(
            [each.done_s - each.issued_s for each in chosen if each.actuator == name and each.is_accepted],
            sum(each.actuator == name and not each.is_accepted for each in chosen),
        )
        for name in dict.fromkeys(each.actuator for each in chosen)
    }


@dataclass(frozen=True, slots=True)
class Result:
    """
    One run.  `values` and `commands` are by who has them; `curves` are (s since the start, age in s) of each.

    `recovery_s` by what recovered, None where it did not, 0 where the cut was not noticed.  `failures` are what must
    not be.  `display_s` is the display interval of the consumer interface, None where nobody reads there.
    """

    option: str
    at: str
    duration_s: float
    wan: str
    cut_s: float
    emp_values: str
    values: Mapping[str, Freshness]
    commands: Mapping[str, Latency]
    reaction: Latency
    steps_missed: int
    cold: Latency | None
    recovery_s: Mapping[str, float | None]
    limit_states: Sequence[str]
    gateway_cpu_percent: float
    wan_bytes_per_s: float
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    cut_span_s: tuple[float, float] = (0.0, 0.0)
    notes: Sequence[str] = ()
    failures: Sequence[str] = ()
    display_s: int | None = None

    def save(self, directory: Path) -> Path:
        """Write it as ems-OPTION.json."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"ems-{self.option}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Result:
        """Raises StromkreisError for a file that holds something else."""
        try:
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kept["values"] = {name: Freshness(**each) for name, each in kept["values"].items()}
            kept["commands"] = {name: Latency(**each) for name, each in kept["commands"].items()}
            kept["reaction"] = Latency(**kept["reaction"])
            kept["cold"] = None if kept["cold"] is None else Latency(**kept["cold"])
            return cls(**kept)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StromkreisError(
                f"{path}: expected the result of a scenario of this version; run it again or remove the file"
            ) from error
