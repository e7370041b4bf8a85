"""A gateway's account with rings over a real store and metering log, by profiles that a test puts in force."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from node.aggregation.account_basis import ProfiledAccount
from node.aggregation.account_review import AccountReview
from node.aggregation.ring_account import RingAccount
from node.metering.entries import LoggedReading
from node.metering.log import MeteringLog
from node.metering.registers import Registers
from node.metrics import NodeMetrics
from node.profiles.contribution_rule import ContributionRule
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.account_basis import AccountBasisRepository
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.attendance import AttendanceRepository
from node.storage.repositories.beacon import BeaconRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol import wire
from protocol.dcnet.discipline.returns import Attendance
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Schema, signed
from protocol.logs.events import Event
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.metering.units import unit_code
from protocol.profiles.profile_set import ProfileSet

GATEWAY, AREA = "ESTK0000000001", "Nord"
IMPORT, EXPORT = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255)
DAY_S = 1_793_491_200  # 2026-11-01T00:00:00Z
ROUNDS = 16
PARTICIPANT = "grid"


def for_participants(*names: str) -> Schema:
    """Totals of import and export that are for these market participants."""
    count, *energies = DEFAULT_SCHEMA.without_power().slots
    return Schema((count, *(replace(slot, recipients=names) for slot in energies)))


SCHEMA = for_participants(PARTICIPANT)


def processing(obis: Obis = IMPORT, meter: int = 0, **changed: Any) -> dict[str, Any]:
    """A processing profile of a register whose recipient gets totals."""
    made = {
        "id": f"{meter}.{obis.c}", "metering_point": f"DE{'0' * 31}", "obis": str(obis),
        "meters": [{"meter": f"m{meter}"}], "use_case": {"taf": 7}, "valid_from": "2026-10-31T00:00:00Z",
        "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
        "recipients": [{"participant": PARTICIPANT, "communication": "w", "delivery": "aggregated"}],
    }  # fmt: skip
    return made | changed


def both(meter: int = 0, **changed: Any) -> list[dict[str, Any]]:
    """The profiles of a meter's import and export."""
    return [processing(obis, meter, **changed) for obis in (IMPORT, EXPORT)]


def profile_set(*profiles: dict[str, Any], version: int = 1, meters: int = 2, **meter: Any) -> ProfileSet:
    """A set with these processing profiles, for a gateway of `meters`."""
    none = "00" * 32
    return ProfileSet.model_validate_json(
        json.dumps({
            "gateway": GATEWAY, "version": version, "issued_at": "2026-10-31T00:00:00Z",
            "meters": [
                {"id": f"m{index}", "device": f"{GATEWAY}/{index}", "protocol": "sml",
                 "registers": [str(IMPORT), str(EXPORT)], "valid_from": "2026-01-01T00:00:00Z"} | meter
                for index in range(meters)
            ],
            "processing": [each | {"id": f"p{index}"} for index, each in enumerate(profiles)],
            "wan": [{"id": "w", "role": "participant", "uri": "https://localhost:7",
                     "valid_from": "2026-01-01T00:00:00Z", "tls_certificate": none, "encryption_certificate": none,
                     "signature_certificate": none}],
        })
    )  # fmt: skip


class InForce:
    """The profiles of a gateway, as `GatewayProfiles` shows those that it has checked; None: what is stored fails."""

    def __init__(self, current: ProfileSet | None, version: int | None = None) -> None:
        self.put(current, version)

    def put(self, current: ProfileSet | None, version: int | None = None) -> None:
        self.current = current
        self.version = version if version is not None else 0 if current is None else current.version
        self.newest_version = self.version

    def devices_of(self, profile: Any) -> list[str]:
        assert self.current is not None
        devices = {each.id: each.device for each in self.current.meters}
        return [devices[each.meter] for each in profile.meters]


def rule_of(profiles: InForce, meters: int = 2, *, without_profile: bool = False) -> ContributionRule:
    devices = [f"{GATEWAY}/{index}" for index in range(meters)]
    return ContributionRule(profiles, devices, AREA, without_profile=without_profile)  # type: ignore[arg-type]


def call(epoch: int, schema: Schema = SCHEMA) -> wire.EpochCall:
    """Epoch `epoch` of the day, 16 quarter hours each."""
    start_s = DAY_S + epoch * ROUNDS * 900
    return wire.EpochCall(
        epoch, 0, AREA, 0, 0, (), schema.to_bytes(), ROUNDS, start_s * 1000, 900_000, start_s, 900, 8, 50_000, 50_000,
        63, (),
    )  # fmt: skip


@dataclass
class Account:
    """One process's; `contribute` is a round that is opened with it in."""

    store: Store
    profiles: InForce
    metering: MeteringLog
    ring: RingAccount
    clock: SimpleNamespace
    published: list[Registers] = field(default_factory=list)
    noted: list[tuple[Event, dict[str, Any]]] = field(default_factory=list)

    async def read(self, index: int, *imports: int) -> None:
        """The meters are read at quarter hour `index` of the day: import in 0.1 Wh, no export."""
        at_s = DAY_S + index * 900
        self.clock.now_s = at_s + 5.0
        for meter, value in enumerate(imports):
            await self.metering.append([
                LoggedReading(
                    f"{GATEWAY}/{meter}", obis, read, -1, unit_code("Wh"), None, at_s * 1000, at_s * 1000, at_s, 0,
                    True, Quality.VALID,
                )
                for obis, read in ((IMPORT, value), (EXPORT, 0))
            ])  # fmt: skip

    async def join(self, epoch: int, schema: Schema = SCHEMA) -> None:
        """A minute before the epoch begins."""
        self.clock.now_s = call(epoch).interval_start_s - 60.0
        await self.ring.use(call(epoch, schema))

    async def contribute(self, epoch: int) -> tuple[int, ...] | None:
        """What goes into the total for the newest registers; None where nothing does."""
        account = self.ring.contributions
        assert account is not None
        registers = self.published[-1]
        round_ = (registers.interval_s - call(epoch).interval_start_s) // 900
        view: Any = SimpleNamespace(epoch=epoch, size=8, noise=(), committed=(), bits=())
        built = account.build(view, round_, registers)
        if built is None:
            return None
        await account.attempted(view, Attempted(round_, 0, Progress.SHARED, is_return=False))
        await account.settle(epoch, round_, included=True)
        return tuple(signed(int(each)) for each in built.vector)

    @property
    def tokens(self) -> int:
        found = AttendanceRepository(self.store).attendance(GATEWAY)
        assert found is not None
        return found.tokens


@asynccontextmanager
async def account_in(path: Path, profiles: InForce, meters: int = 2, *, bound: int = -1) -> AsyncIterator[Account]:
    """
    One process over the store in `path`; leaving is a crash as far as the next one can tell.

    Its keys were in epoch `bound` before.
    """
    store = Store(path / "registers.sqlite", StorageCipher(bytes(32)))
    attendance = AttendanceRepository(store)
    clock = SimpleNamespace(now_s=DAY_S - 3600.0)
    metrics = NodeMetrics(CollectorRegistry())
    services: Any = SimpleNamespace(
        accounts=AccountRepository(store), attendance=attendance, limit_returns=True, clock=lambda: clock.now_s,
        billing=SimpleNamespace(keep_s=10**8), metrics=metrics,
    )  # fmt: skip
    module: Any = SimpleNamespace(
        identity=GATEWAY, blinding=lambda: 1, random_bits=lambda _: 0, newest_bound=lambda: bound
    )
    any_: Any = SimpleNamespace(permits=lambda _: True)  # nobody asks the coordinator here
    review = AccountReview(
        any_, GATEWAY, any_, b"", any_, metrics, lambda _: False, lambda _: None, lambda: int(clock.now_s),
        BeaconRepository(store), lambda: clock.now_s,
    )  # fmt: skip
    published: list[Registers] = []
    noted: list[tuple[Event, dict[str, Any]]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        if attendance.attendance(GATEWAY) is None:
            await attendance.begin(GATEWAY, Attendance.first(DAY_S - 86_400, is_key_new=True))
        metering = MeteringLog(MeteringLogRepository(store), GATEWAY, lambda: clock.now_s)
        profiled = ProfiledAccount(
            AccountBasisRepository(store), rule_of(profiles, meters), GATEWAY, AREA, metrics,
            lambda event, **parameters: noted.append((event, parameters)),
        )  # fmt: skip

        def publish(registers: Registers) -> bool:
            published.append(registers)
            return True

        ring = RingAccount(services, module, metering, profiled, 63, review, publish, lambda _: None)
        yield Account(store, profiles, metering, ring, clock, published, noted)
        nursery.cancel_scope.cancel()
    store.close()
