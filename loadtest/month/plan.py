"""
What a month of a given size looks like: time, ports, the configuration of each process, and the profile set of all.

The layout of processes and rings is the demo's (`loadtest.demo.plan`).  A plan is written down before anything starts,
so that a run that was broken off goes on under the same addresses and at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from loadtest.config import MetersConfig
from loadtest.demo.plan import (
    DemoSettings,
    PlannedGateway,
    Schedule,
    coordinator_section,
    node_section,
    planned_gateways,
)
from loadtest.households import Household, households
from loadtest.month.truth import COUNT, DAYS_ON_DEMAND, FIRST_QUARTER_HOUR, IMPORT, MONTH_S, TAFS
from loadtest.ports import free_port
from loadtest.ring_profiles import ENERGIES, ring_meter, ring_processing, ring_wan
from node.profiles.checking import text_of
from protocol.errors import StromkreisError

EPOCH_ROUNDS = 48  # half a day: who was killed is in a ring again after it
KEEP_DAYS = 3_660  # the month does not move, real time does
PROFILE_POLL_S = 10.0
_PORTS = ("ring", "https", "http", "inbox", "inbox_relay", "web_relay")


@dataclass(frozen=True, slots=True)
class MonthSettings:
    """
    What a person chooses; `directory` gets everything.

    `rounds` are the quarter hours at the month's end in which meters are read and rings run, `period_s` the wall clock
    of one (None: by the number of gateways), `setup_s` what they have until the first.  `live`: what is delivered of
    them is read from the meters too; a value counts for billing within 1 % of `period_s`, so give it some.
    `profile` is the link profile (netem) of deliveries, every `cut_every_s` connections break and stay away for
    `cut_s`; 0: never.  `kills` of a node, and one of the coordinator, while gateways deliver.
    """

    directory: Path
    gateways: int = 500
    rounds: int = 96
    period_s: float | None = None
    setup_s: float | None = None
    ring_size: int | None = None
    processes: int = 4
    seed: int = 1
    tafs: tuple[int, ...] = TAFS
    kills: int = 3
    live: bool = False
    profile: str = "lte"
    cut_every_s: float = 20.0
    cut_s: float = 3.0

    @property
    def demo(self) -> DemoSettings:
        """The same as the demo's, which knows how long things take."""
        return DemoSettings(
            gateways=self.gateways, rounds_wanted=EPOCH_ROUNDS, period_s=self.period_s, setup_s=self.setup_s,
            ring_size=self.ring_size, processes=self.processes, seed=self.seed, out=self.directory,
        )  # fmt: skip

    @property
    def first_index(self) -> int:
        """The quarter hour of the month in which the first round is."""
        return COUNT - self.rounds


@dataclass(slots=True)
class Plan:
    """
    One run: settings, when the first round is, ports, enrolment tokens by area; whether the month is over.

    `figures` and `kills` are what was measured and done so far, for the report.
    """

    settings: MonthSettings
    schedule: Schedule
    ports: dict[str, int]
    tokens: dict[str, str] = field(default_factory=dict)
    is_over: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    kills: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, settings: MonthSettings) -> Plan:
        """A new one, its first round some time from now."""
        names = (*_PORTS, *(f"node-{index + 1}" for index in range(settings.processes)))
        demo = settings.demo
        schedule = Schedule.after(demo.setup_in_force_s, demo.period_in_force_s)
        return cls(settings, schedule, {name: free_port() for name in names})

    @classmethod
    def load(cls, settings: MonthSettings) -> Plan | None:
        """The one that was broken off in this directory.  Raises StromkreisError for one of other settings."""
        path = settings.directory / "plan.json"
        if not path.exists():
            return None
        kept = json.loads(path.read_text())
        if kept["settings"] != json.loads(json.dumps(_plain(settings))):
            raise StromkreisError(
                f"{settings.directory}: a run of other settings was broken off here; give the same ones to go on, or"
                " another directory"
            )
        schedule = Schedule(**kept["schedule"])
        return cls(settings, schedule, *(kept[name] for name in ("ports", "tokens", "is_over", "figures", "kills")))

    def save(self) -> None:
        """Write it down."""
        values = {
            "settings": _plain(self.settings), "schedule": asdict(self.schedule), "ports": self.ports,
            "tokens": self.tokens, "is_over": self.is_over, "figures": self.figures, "kills": self.kills,
        }  # fmt: skip
        path = self.settings.directory / "plan.json"
        path.touch(mode=0o600)
        unfinished = path.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(values, indent=1))
        unfinished.replace(path)

    def begin(self) -> None:
        """The first round is a set-up's time from now."""
        demo = self.settings.demo
        self.schedule = Schedule.after(demo.setup_in_force_s, demo.period_in_force_s)
        self.save()

    @property
    def work(self) -> Path:
        """Where the processes keep their files."""
        return self.settings.directory / "run"

    @property
    def web(self) -> tuple[str, str]:
        """The coordinator's addresses, https and http."""
        return f"https://127.0.0.1:{self.ports['https']}", f"http://127.0.0.1:{self.ports['http']}"

    @property
    def end_unix_s(self) -> float:
        """Wall clock of the month's end."""
        return self.schedule.origin_unix_s + self.settings.rounds * self.schedule.period_s

    @property
    def gateways(self) -> list[PlannedGateway]:
        """All of them; gateway i reads meter i."""
        return planned_gateways(self.settings.demo)

    def households(self) -> list[Household]:
        """Whose meters they read, in their order."""
        return households(self.meters())

    def meters(self) -> MetersConfig:
        """`[meters]`; they stand still until a quarter hour before the first round."""
        settings = self.settings
        return MetersConfig(
            count=settings.gateways, seed=settings.seed, first_port=0, period_s=self.schedule.period_s,
            origin_unix_s=self.schedule.meters_origin_unix_s, register_decimals=0,
            start_quarter_hour=FIRST_QUARTER_HOUR + settings.first_index - 1, meter_list=self.work / "meters.json",
        )  # fmt: skip

    def coordinator(self) -> dict[str, Any]:
        """`[coordinator]`."""
        section = coordinator_section(self.settings.demo, self.schedule, self.work, self.web)
        section["listen"] = f"tcp://127.0.0.1:{self.ports['ring']}"
        section["deliveries"] = {"inbox": f"https://127.0.0.1:{self.ports['inbox']}"}
        section["epoch"] |= {
            "rounds": EPOCH_ROUNDS, "metering_origin_unix_s": MONTH_S + self.settings.first_index * 900,
        }  # fmt: skip
        return section

    def node(self, index: int, urls: Mapping[str, str]) -> dict[str, Any]:
        """`[node]` of a process; `urls` of meters by gateway."""
        name = f"node-{index + 1}"
        section = node_section(
            name, [each for each in self.gateways if each.process == index], urls, self.tokens, work=self.work,
            coordinator=f"https://127.0.0.1:{self.ports['web_relay']}",
            root_certificate=self.work / "coordinator/pki/root.pem", metrics=f"http://127.0.0.1:{self.ports[name]}",
            rounds=EPOCH_ROUNDS,
        )  # fmt: skip
        return section | {"profile_poll_s": PROFILE_POLL_S, "metering": {"keep_days": KEEP_DAYS}}

    def template(self) -> dict[str, Any]:
        """One profile set for all gateways, for `stromkreis gwa profiles roll-out`."""
        pki = self.work / "coordinator/pki"
        tls, encryption = (
            x509.load_pem_x509_certificates((pki / f"{name}.pem").read_bytes())[0]
            for name in ("emt-tls", "emt-encryption")
        )
        day = [{"at": "00:00", "stage": 1}, {"at": "06:00", "stage": 2}, {"at": "22:00", "stage": 1}]
        calendar = {
            "day_profiles": [{"id": "d", "switches": day}], "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}],
        }  # fmt: skip
        cases: dict[int, dict[str, Any]] = {2: {"calendar": calendar}, 6: {"days": DAYS_ON_DEMAND}}
        timed = {"valid_from": "2026-01-01T00:00:00Z"}
        return {
            "gateway": "{gateway}", "version": 2,  # the first is that of rings alone
            "issued_at": "2026-10-01T12:00:00+02:00",
            "meters": [ring_meter(ENERGIES)],
            "processing": [
                timed | {
                    "id": f"taf{taf}", "metering_point": f"DE{'0' * 23}{{number}}", "obis": str(IMPORT),
                    "meters": [{"meter": "m"}], "use_case": {"taf": taf} | cases.get(taf, {}),
                    "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
                    "recipients": [{"participant": "emp", "communication": "emp", "delivery": "direct"}],
                }
                for taf in self.settings.tafs
            ] + ring_processing(ENERGIES),
            "wan": [ring_wan(), timed | {
                "id": "emp", "role": "participant",
                "uri": f"https://127.0.0.1:{self.ports['inbox_relay']}/cosem/deliveries",
                "tls_certificate": tls.fingerprint(hashes.SHA256()).hex(), "signature_certificate": "00" * 32,
                "encryption_certificate": encryption.fingerprint(hashes.SHA256()).hex(),
            }],
            "certificates": [text_of(encryption)],
        }  # fmt: skip


def _plain(settings: MonthSettings) -> dict[str, Any]:
    return asdict(settings) | {"directory": str(settings.directory)}
