"""
Appliance load curves at one second, from the models of the antgen package (MIT licence), read as data.

A model is a sequence of components with a share of the cycle's duration each: constant, linear, exponential decay
after a switch-on peak, or logarithmic growth (AMBAL: Buneeva, Reinhardt, SmartGridComm 2017).  The package's own tool
is not imported.  A curve is kept as its running energy, so the mean power over any slot is one difference of two
interpolated values, whatever the slot's length and the offset of the start in it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from protocol.errors import StromkreisError

PACKAGE = "antgen"


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """One recorded cycle of an appliance; `energy_ws[k]` is what it has drawn after k seconds, in watt seconds."""

    energy_ws: NDArray[np.float64]

    @property
    def duration_s(self) -> int:
        """The recorded duration of the cycle."""
        return len(self.energy_ws) - 1

    @property
    def peak_w(self) -> float:
        """The largest mean power of a second."""
        return float(np.max(np.diff(self.energy_ws)))

    def mean_power_w(self, start_s: float, duration_s: float, slot_s: int) -> tuple[int, NDArray[np.float64]]:
        """
        The first slot that the cycle touches, and its mean power in that slot and those after it.

        The cycle starts `start_s` after the beginning of slot 0 and is stretched to `duration_s`.
        """
        first = int(start_s // slot_s)
        last = int(np.ceil((start_s + duration_s) / slot_s))
        bounds_s = np.arange(first, last + 1) * float(slot_s) - start_s
        stretch = duration_s / self.duration_s
        at = np.clip(bounds_s / stretch, 0.0, self.duration_s)
        whole = np.minimum(at.astype(np.int64), self.duration_s - 1)
        before = self.energy_ws[whole]
        drawn = before + (at - whole) * (self.energy_ws[whole + 1] - before)
        return first, (drawn[1:] - drawn[:-1]) * (stretch / slot_s)


@dataclass(frozen=True, slots=True)
class ApplianceLibrary:
    """Recorded devices by appliance type; a device is the tuple of its recorded cycles."""

    version: str
    devices: dict[str, tuple[tuple[LoadCurve, ...], ...]]

    def peak_w(self, appliance: str) -> float:
        """The median of the peak powers of the type's recorded cycles."""
        return float(np.median([cycle.peak_w for device in self.devices[appliance] for cycle in device]))


@lru_cache(maxsize=1)
def load_library() -> ApplianceLibrary:
    """The library of the installed package.  Raises StromkreisError where it is missing or has no models."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StromkreisError(
            f"the appliance models of the package {PACKAGE} are not installed; `make lab` or "
            "`pip install stromkreis[lab]` installs them"
        )
    root = Path(next(iter(spec.submodule_search_locations))) / "appliances"
    devices: dict[str, list[tuple[LoadCurve, ...]]] = {}
    for folder in sorted(path for path in root.glob("*/*") if path.is_dir()):
        cycles = tuple(read_model(path) for path in sorted(folder.iterdir()) if path.is_file())
        if cycles:
            devices.setdefault(folder.parent.name, []).append(cycles)
    if not devices:
        raise StromkreisError(f"the package {PACKAGE} has no appliance models in {root.name}/")
    return ApplianceLibrary(
        f"{PACKAGE} {importlib.metadata.version(PACKAGE)}", {name: tuple(each) for name, each in devices.items()}
    )


def read_model(path: Path) -> LoadCurve:
    """One AMBAL model.  Raises StromkreisError for what is no such model."""
    try:
        profile = ElementTree.parse(path).getroot()  # noqa: S314 - a file of an installed package
        duration_s = int(profile.attrib["duration"])
        power_w = np.zeros(duration_s)
        begin = 0
        for load in profile.findall("load"):
            end = min(duration_s, begin + round(_number(load, "duration") * duration_s))
            power_w[begin:end] = _component(load, end - begin)
            begin = end
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise StromkreisError(
            f"{path.name} of {path.parent.name} is no appliance model: expected <profile duration> with <load type> "
            f"components, found {error}"
        ) from error
    return LoadCurve(np.concatenate(([0.0], np.cumsum(np.maximum(power_w, 0.0)))))


def _number(load: ElementTree.Element, name: str, missing: float | None = None) -> float:
    element = load.find(name)
    if element is None:
        if missing is None:
            raise KeyError(name)
        return missing
    return float(element.attrib["value"])


def _component(load: ElementTree.Element, length: int) -> NDArray[np.float64]:
    match load.attrib["type"]:
        case "ON_OFF":
            return np.full(length, _number(load, "onPower"))
        case "LINEAR":
            return np.linspace(_number(load, "startPower"), _number(load, "endPower"), length)
        case "ON_OFF_DECAY":
            active_w, peak_w = _number(load, "activePower"), _number(load, "peakPower")
            decayed = np.exp(-_number(load, "decayRate") * np.arange(length))
            return np.asarray(active_w + (peak_w - active_w) * decayed, np.float64)
        case "ON_OFF_GROWTH":
            stretch = _number(load, "stretchFactor", 1.0)
            grown = np.log(stretch * np.arange(1, length + 1))
            return np.asarray(_number(load, "basePower") + _number(load, "growthRate") * grown, np.float64)
        case other:
            raise ValueError(f"the component type {other}")
