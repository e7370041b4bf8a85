"""
What a demo of a given size looks like: processes, areas, rings, time, and the configuration file of each process.

Plain computations from a few settings, so that a test can look at a demo of a thousand gateways without running it.
Gateways alternate between the areas, and within each area they are dealt to the processes in one pattern, so every
ring loses about the same share when one process dies: the last process, which hosts half as many as the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtest.config import MetersConfig
from loadtest.ports import free_port
from protocol.dcnet.setup.calendar import CalendarPolicy
from protocol.metering.interval import HOUR_S, QUARTER_HOUR_S, first_index_from

_AREAS = ("Nord", "Süd", "Ost", "West")
_AREA_SIZE = 250  # gateways; the rates of the corrupt and the silent hold for an area, so a huge one needs huge rings
METERING_DAY = datetime(2026, 6, 22, 8, 0).astimezone()  # a summer morning: the roofs come in while one watches
_START_QUARTER_HOUR = (METERING_DAY.timetuple().tm_yday - 1) * 96 + 8 * 4
_DROPOUT = 0.3  # of a neighbourhood: a process that dies takes a seventh along, and a ring may get twice its share
_DROPOUT_OF_MANY = 0.1  # of an area of hundreds: what a ring of it may lose by chance is more, and the numbers allow it
INTERVAL_S = 900
ROUNDS_MAX = 7 * 96  # in one epoch, which a node's configuration lets last a week
_SMALL = 192


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """
    What a person chooses; None means: by the number of gateways.

    `period_s` is the wall clock of one quarter hour: raising it gives slow machines time, and the demo lasts longer.
    `setup_s` is the time until the first round; too little ends the demo with a sentence that says so.
    """

    gateways: int = 48
    rounds_wanted: int | None = None
    period_s: float | None = None
    setup_s: float | None = None
    ring_size: int | None = None
    processes: int = 4
    seed: int = 1
    keep: bool = False
    out: Path = Path("out/demo")
    replay: Path | None = None
    web_port: int = 7380

    @property
    def period_in_force_s(self) -> float:
        """1 s for a neighbourhood, 7 s for a thousand gateways on two cores."""
        return self.period_s if self.period_s is not None else max(1.0, 0.5 + self.gateways * 0.0065)

    @property
    def rounds(self) -> int:
        """24 in a neighbourhood, 20 beyond: a thousand gateways' quarter hour is longer."""
        return self.rounds_wanted if self.rounds_wanted is not None else (24 if self.gateways <= _SMALL else 20)

    @property
    def setup_in_force_s(self) -> float:
        """Certificates, profiles, connections, keys and deals: a fixed part, and what a gateway takes of two cores."""
        return self.setup_s if self.setup_s is not None else 18.0 + 0.12 * self.gateways

    @property
    def areas(self) -> tuple[str, ...]:
        """Two in a neighbourhood, one for each 250 gateways beyond."""
        count = max(2, self.gateways // _AREA_SIZE)
        return (*_AREAS, *(f"Area {i}" for i in range(len(_AREAS), count)))[:count]

    @property
    def dropout(self) -> float:
        """The share of an area that may fall silent."""
        return _DROPOUT if self.gateways <= _SMALL else _DROPOUT_OF_MANY

    @property
    def ring_size_in_force(self) -> int:
        """24 in a neighbourhood, 64 beyond."""
        return self.ring_size if self.ring_size is not None else (24 if self.gateways <= _SMALL else 64)


@dataclass(frozen=True, slots=True)
class PlannedGateway:
    """One gateway: its id, area, and the index of the process that hosts it."""

    id: str
    area: str
    process: int


def planned_gateways(settings: DemoSettings) -> list[PlannedGateway]:
    """All gateways in order; gateway i reads meter i of the meter_list."""
    last = settings.processes - 1
    areas = settings.areas
    pattern = [*range(last), *range(last), last]
    return [
        PlannedGateway(f"ESTK00{i:08d}", areas[i % len(areas)], pattern[i // len(areas) % len(pattern)])
        for i in range(settings.gateways)
    ]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When rounds begin: round window w of the coordinator is quarter hour w + 1 of the meters."""

    origin_unix_s: int
    period_s: float

    @classmethod
    def after(cls, setup_s: float, period_s: float) -> Schedule:
        """The first round `setup_s` from now, on a whole second."""
        return cls(math.ceil(time.time() + setup_s), period_s)

    @property
    def meters_origin_unix_s(self) -> float:
        """The meters start one quarter hour early, so that the first round already has energy to tell."""
        return self.origin_unix_s - self.period_s

    @staticmethod
    def quarter_hour(interval_index: int) -> int:
        """The meters' quarter hour during the coordinator's interval."""
        return interval_index + 1


def meters_config(settings: DemoSettings, schedule: Schedule, work: Path) -> MetersConfig:
    """The neighbourhood; recordings come first, at most every third meter is one."""
    recorded = _recorded(settings)
    return MetersConfig(
        count=settings.gateways - recorded, replay=settings.replay if recorded else None, replay_count_max=recorded,
        seed=settings.seed, first_port=0, origin_unix_s=schedule.meters_origin_unix_s, period_s=schedule.period_s,
        start_quarter_hour=_START_QUARTER_HOUR, meter_list=work / "meters.json",
    )  # fmt: skip


def _recorded(settings: DemoSettings) -> int:
    if settings.replay is None:
        return 0
    from loadtest.replays import recordings  # noqa: PLC0415 - a demo without recordings needs no such table

    return len(recordings(settings.replay, count_max=settings.gateways // 3))


def coordinator_section(settings: DemoSettings, schedule: Schedule, work: Path, web: Sequence[str]) -> dict[str, Any]:
    """`[coordinator]` of the demo; `web` are its addresses, https and http."""
    return {
        "listen": f"tcp://127.0.0.1:{free_port()}",
        "data_dir": str(work / "coordinator"),
        "initial_profiles": str(profiles_path(work)),
        "areas": list(settings.areas),
        "web": {"listen": list(web)},
        "epoch": {
            # A day, as in the field: the keys of the next epoch are not made while a short demo is being watched.
            "rounds": max(settings.rounds, 96),
            "period_s": schedule.period_s,
            "interval_s": INTERVAL_S,
            "origin_unix_s": schedule.origin_unix_s,
            "metering_origin_unix_s": int(METERING_DAY.timestamp()),
            "ring_size": settings.ring_size_in_force,
            "power": False,  # the rings are below the gateways' floor
            "dropout": settings.dropout,
        },
    }


def profiles_path(work: Path) -> Path:
    """The profile set that the administrator signs for every gateway."""
    return work / "profiles.json"


def node_section(
    name: str,
    gateways: Sequence[PlannedGateway],
    meter_urls: Mapping[str, str],
    tokens: Mapping[str, str],
    *,
    work: Path,
    coordinator: str,
    root_certificate: Path,
    metrics: str,
    rounds: int,
) -> dict[str, Any]:
    """`[node]` of one process; `meter_urls` by gateway id, `tokens` by area; an epoch has `rounds` quarter hours."""
    hours = first_index_from(rounds * QUARTER_HOUR_S, 0, HOUR_S)
    return {
        "policy": {
            "time_lapse": True,
            "limit_returns": False,
            "contribute_without_profile": True,  # until the first set: a busy machine takes a while to sign all
            "honest_floor": 2,
            "epoch_rounds_min": min(rounds, CalendarPolicy().rounds_min),
            "epoch_hours_max": max(hours, CalendarPolicy().duration_s_max // HOUR_S),
        },
        "data_dir": str(work / name),
        "coordinator": coordinator,
        "root_certificate": str(root_certificate),
        "metrics": metrics,
        "gateways": [
            {"id": each.id, "meters": [meter_urls[each.id]], "area": each.area, "token": tokens[each.area]}
            for each in gateways
        ],
    }
