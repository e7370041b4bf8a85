"""
How far a campaign has come: a file from which a run that was stopped goes on, and what the run says in the end.

The file holds for one scenario, one first seed and these very sources, or a campaign could claim seeds that were played
by another protocol.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from loadtest.simulator.run import Played, Scenario
from protocol.errors import StromkreisError

_ROOT = Path(__file__).parents[2]
_SOURCES = ("protocol", "loadtest/simulator", "loadtest/ring.py", "loadtest/harness.py")
_COUNTS = ("played", "opened", "void", "smallest_sum")


class ProgressError(StromkreisError):
    """A file that this campaign cannot go on from."""


@dataclass(slots=True)
class CampaignProgress:
    """Seeds played, in their order; ring rounds opened and void; the fewest honest members in a sum that came open."""

    scenario: Scenario
    first: int
    played: int = 0
    opened: int = 0
    void: int = 0
    smallest_sum: int = 0

    def __post_init__(self) -> None:
        self.smallest_sum = self.smallest_sum or self.scenario.gateways

    @property
    def rounds(self) -> int:
        """How many rings' rounds were played."""
        return self.opened + self.void

    def add(self, seed: Played) -> None:
        """Count a seed."""
        self.played += 1
        self.opened += seed.tally.opened
        self.void += seed.tally.void
        self.smallest_sum = min(self.smallest_sum, seed.smallest_sum)

    def _identity(self) -> dict[str, Any]:
        return {"first": self.first, "scenario": asdict(self.scenario), "sources": _digest_of_sources()}

    def save(self, path: Path) -> None:
        """Replace the file, whole or not at all.  Raises OSError."""
        new = path.with_name(path.name + ".new")
        counts = {name: getattr(self, name) for name in _COUNTS}
        new.write_text(json.dumps(self._identity() | counts, indent=1) + "\n", encoding="utf-8")
        os.replace(new, path)

    @classmethod
    def begin(cls, scenario: Scenario, first: int, path: Path | None) -> Self:
        """
        Nothing yet, or what the file says, if there is one.

        Raises ProgressError where it is of another campaign or of none.
        """
        fresh = cls(scenario, first)
        if path is None or not path.exists():
            return fresh
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            counts = {name: int(said[name]) for name in _COUNTS}
            differing = [name for name, value in fresh._identity().items() if said[name] != value]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProgressError(f"{path} is no record of a campaign ({error!r}); name another file") from error
        if differing:
            raise ProgressError(
                f"{path} records a campaign with another {', '.join(differing)}; "
                "give it the options that it began with, or name another file to begin anew"
            )
        return cls(scenario, first, **counts)


def _digest_of_sources() -> str:
    value = hashlib.sha256()
    for source in _SOURCES:
        path = _ROOT / source
        for each in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            value.update(str(each.relative_to(_ROOT)).encode() + b"\0" + each.read_bytes())
    return value.hexdigest()[:16]
