"""A gateway's use cases on a store of their own, for tests: meters' readings in, derived periods and deliveries out."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from node.metering.entries import LoggedReading
from node.metering.log import MeteringLog
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.taf.current_values import CurrentValues
from node.taf.use_cases import UseCases
from protocol.cosem.delivery import PeriodResult
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.profile_set import ProfileSet

GATEWAY = "ESTK0100000001"
METERS = (f"{GATEWAY}/0", f"{GATEWAY}/1")
OCTOBER_S = 1_790_805_600  # 2026-10-01 00:00 by German legal time
IMPORT = Obis(1, 0, 1, 8, 0, 255)
_REGISTERS = ("1-0:1.8.0*255", "1-0:2.7.0*255", "1-0:32.7.0*255", "1-0:14.7.0*255")


def moment(second: float) -> str:
    """A second after the beginning of October 2026, as profiles have it."""
    return datetime.fromtimestamp(OCTOBER_S + second, UTC).isoformat()


def profile_set(
    *processing: dict[str, Any], issued_s: float = 0, version: int = 1, meter_period_s: int = 900
) -> ProfileSet:  # fmt: skip
    """A set with these processing profiles, one recipient each for every form of delivery."""
    timed = {"valid_from": "2026-01-01T00:00:00Z"}
    meter = timed | {"protocol": "sml", "registers": _REGISTERS, "registration_period_s": meter_period_s}
    made = {
        "gateway": GATEWAY, "version": version, "issued_at": moment(issued_s),
        "meters": [
            meter | {"id": f"m{index}", "device": each}
            for index, each in enumerate((*METERS, METERS[0]))
        ],
        "processing": [timed | {
            "metering_point": "DE0001234567890123456789012345678", "obis": "1-0:1.8.0*255", "scaler": -1,
            "meters": [{"meter": "m0"}], "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "days": 1},
            "recipients": [
                {"participant": form, "communication": "w1", "delivery": form}
                for form in ("direct", "pseudonymous", "aggregated")
                if form != "aggregated" or (each["use_case"]["taf"] != 14 and meter_period_s >= 900)
            ],
        } | each for each in processing],
        "wan": [timed | {
            "id": "w1", "role": "participant", "uri": "https://localhost:7", "tls_certificate": "00" * 32,
            "encryption_certificate": "00" * 32, "signature_certificate": "00" * 32,
        }],
    }  # fmt: skip
    return ProfileSet.from_bytes(json.dumps(made).encode())


class Profiles:
    """What use cases ask of `node.profiles.gateway_profiles.GatewayProfiles`."""

    def __init__(self, current: ProfileSet) -> None:
        self.current = current
        self.changed = trio.Event()

    def processing(self, at: datetime) -> list[ProcessingProfile]:
        return [each for each in self.current.processing if each.is_valid_at(at)]

    def devices_of(self, profile: ProcessingProfile) -> list[str | None]:
        devices = {each.id: each.device for each in self.current.meters}
        return [devices[each.meter] for each in profile.meters]


class _Octets:
    """Random octets, the same in each run."""

    def __init__(self) -> None:
        self._draw = random.Random(1)

    def random(self, size: int) -> bytes:
        return self._draw.randbytes(size)


class TafGateway:
    """A gateway at `now_s` (Unix, s), which a test sets."""

    def __init__(self, store: Store, profiles: ProfileSet) -> None:
        self.now_s = float(OCTOBER_S)
        self._octets = _Octets()
        self.profiles = Profiles(profiles)
        self.repository = UseCaseRepository(store)
        self.log = MeteringLog(MeteringLogRepository(store), GATEWAY, lambda: self.now_s)
        self.use_cases = self.new_process()

    def new_process(self) -> UseCases:
        """Use cases that know nothing but what is in the store."""
        profiles: Any = self.profiles
        self.use_cases = UseCases(
            self.log, profiles, self.repository, self._octets, lambda: int(self.now_s), lambda: self.now_s, lambda: None
        )
        return self.use_cases

    @property
    def current_values(self) -> CurrentValues:
        return self.use_cases._current_values

    async def listen(self) -> None:
        """Have the use cases of this process hear of what is logged, and nobody before them."""
        self.log._subscriptions.clear()
        await self.use_cases._subscribe()

    async def register(self, second: int, value: int, *, on_time: bool = True, meter: int = 0) -> None:
        """Log the value of a registration time, and close what is due."""
        at_s = OCTOBER_S + second
        self.now_s = max(self.now_s, at_s + 1.0)
        await self.log.append([
            LoggedReading(
                METERS[meter], IMPORT, value, -1, 30, None, at_s * 1000, at_s * 1000, at_s, 0, on_time, Quality.VALID
            )
        ])  # fmt: skip

    async def telegram(self, second: float, values: dict[str, int], *, quality: Quality = Quality.VALID) -> None:
        """Log values that are no registration's: voltages in tenths of a volt and the like."""
        at_ms = int((OCTOBER_S + second) * 1000)
        self.now_s = max(self.now_s, at_ms / 1000)
        await self.log.append([
            LoggedReading(
                METERS[0], Obis.parse(obis), value, -1, 35, None, at_ms, at_ms, None, None, False, quality
            )
            for obis, value in values.items()
        ])  # fmt: skip

    async def look(self, second: float | None = None) -> float:
        """Close current values that are due; how long until the next (s)."""
        if second is not None:
            self.now_s = OCTOBER_S + second
        return await self.current_values.close_due()

    def results(self, profile: str) -> list[PeriodResult]:
        """What was derived, in order."""
        found = [self.repository.result(GATEWAY, profile, each) for each in self.repository.closed(GATEWAY, profile)]
        return [each for each in found if each is not None]

    def deliveries(self, profile: str) -> list[tuple[int, str]]:
        """Start (seconds after the beginning of October) and form of those that wait, in order."""
        waiting = self.repository.waiting(GATEWAY)
        return [(each.start_s - OCTOBER_S, each.delivery) for each in waiting if each.profile == profile]


@asynccontextmanager
async def taf_gateway(directory: Path, profiles: ProfileSet) -> AsyncIterator[TafGateway]:
    """A gateway whose store is written until the block is left."""
    store = Store(directory / "registers.sqlite", StorageCipher(bytes(32)))
    try:
        async with store.writing():
            gateway = TafGateway(store, profiles)
            await gateway.listen()
            yield gateway
    finally:
        store.close()
