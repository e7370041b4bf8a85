"""Over real sockets: market participants fetch their totals, and a household that does not name one is in none."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import trio
from cryptography.hazmat.primitives import hashes

from coordinator.config import WebConfig
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import certified_key
from coordinator.recipients import TotalsRecipient
from coordinator.storage.epochs import EpochRecord
from coordinator.storage.store import Store
from coordinator.web.participant_totals import TOTALS_PATH
from loadtest.network import Network
from loadtest.ports import free_port
from loadtest.ring_profiles import ENERGIES, ring_profiles
from protocol import pki
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.schema import signed
from protocol.link.tls import client_context
from tests.integration.away_gateway import AWAY, roll_out

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger

AREAS = ("north", "south")
NAMES = ("north-grid", "south-grid", "supplier")
_WAIT_S = 600.0
IMPORT = str(ENERGIES[0])
IMPORTS = ("gateways", "energy_import")
EVER: dict[str, str | int] = {"from": "1970-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z", "limit": 1_000}


def profiles(version: int = 1, supplier: str = "supplier") -> dict[str, Any]:
    """Import and export for the area's own grid operator, import for the supplier as well."""
    made = ring_profiles(version=version)
    for each in made["processing"]:
        names = {"north-grid": "north", "south-grid": "south"} | ({supplier: "north"} if each["obis"] == IMPORT else {})
        each["recipients"] = [
            {"participant": name, "communication": "totals", "delivery": "aggregated", "area": area}
            for name, area in names.items()
        ]
    return made


class Participants:
    """Their certificates, and what they fetch."""

    def __init__(self, network: Network) -> None:
        self.folder = network.directory / "participants"
        self.pki = network.directory / "coordinator" / "pki"
        self.pki.parent.mkdir()
        now = datetime.now(UTC)
        self.authority = CertificateAuthority.create(self.pki, now, hosts=("127.0.0.1", "localhost"))
        prints = {
            name: certified_key(
                self.folder, name, self.authority, pki.Role.PARTICIPANT_TLS, now, organisation=name
            ).certificate.fingerprint(hashes.SHA256()).hex()
            for name in NAMES
        }  # fmt: skip
        network.recipients = (
            TotalsRecipient(participant="north-grid", areas=("north",), certificates=(prints["north-grid"],)),
            TotalsRecipient(participant="south-grid", areas=("south",), certificates=(prints["south-grid"],)),
            TotalsRecipient(
                participant="supplier", areas=("north",), registers=(IMPORT,), certificates=(prints["supplier"],)
            ),
        )
        self.address = f"https://127.0.0.1:{free_port()}"
        network.web_config = WebConfig(listen=("https://127.0.0.1:0",), totals=self.address)

    async def fetch(self, name: str, area: str) -> httpx.Response:
        chain, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        context = client_context(self.pki / "root.pem", chain=chain, key=key)
        async with httpx.AsyncClient(base_url=self.address, verify=context, timeout=60) as client:
            return await client.get(TOTALS_PATH, params=EVER | {"area": area})

    async def values(self, name: str, area: str) -> dict[str, dict[str, int]]:
        """By interval start: the values that are known, by name."""
        answer = await self.fetch(name, area)
        assert answer.status_code == 200, answer.text
        return {
            item["interval_start"]: {each["name"]: int(each["value"]) for each in item["values"]}
            for item in answer.json()["items"]
            if item["rings"]["opened"]
        }


def epochs_of(network: Network, area: str) -> dict[int, EpochRecord]:
    assert network.coordinator_config is not None
    store = Store(network.coordinator_config.database_url)
    found = {each.epoch: each for each in store.epochs.all() if each.area == area}
    store.close()
    return found


def recorded(network: Network, area: str) -> dict[str, dict[str, int]]:
    """The same from the round ledger."""
    epochs, found = epochs_of(network, area), dict[str, Counter[str]]()
    for each in network.ended():
        if each.epoch in epochs and each.roster:
            start = datetime.fromtimestamp(epochs[each.epoch].interval_of(each.round), UTC)
            named = zip([slot.name for slot in network.schema.slots], map(signed, each.total), strict=True)
            found.setdefault(f"{start:%Y-%m-%dT%H:%M:%SZ}", Counter()).update(dict(named))
    return {start: dict(values) for start, values in found.items()}


def rosters(network: Network, area: str, after: int) -> list[set[str]]:
    """Who is in the totals of an area's epochs behind `after`."""
    epochs, members = epochs_of(network, area), network.members()
    return [
        {members[each.epoch, each.ring][position] for position in positions_of(each.roster)}
        for each in network.ended()
        if each.epoch in epochs and each.epoch > after and each.roster
    ]


async def check_shown(network: Network, participants: Participants) -> None:
    """What each is shown is what the ledger has, of every interval that is not growing just now."""
    before = {area: recorded(network, area) for area in AREAS}
    shown = {area: await participants.values(f"{area}-grid", area) for area in AREAS}
    imports = await participants.values("supplier", "north")
    for area in AREAS:
        now = recorded(network, area)
        settled = {start: total for start, total in before[area].items() if total == now[start]}
        assert len(settled) >= 2
        assert {start: shown[area].get(start) for start in settled} == settled
        if area == "north":
            told = {start: {name: total[name] for name in IMPORTS} for start, total in settled.items()}
            assert {start: imports.get(start) for start in settled} == told


async def test_each_participant_fetches_its_own_totals_and_no_others(
    network: Network, ledger: Ledger, tmp_path: Path
) -> None:
    """Then one household's new profiles name another supplier: it is in no total of its area any more."""
    network.gateways, network.rounds, network.profile_poll_s = 16, 6, 0.5
    network.period_s = 3.0  # two areas in one process: a busy machine has to keep up with both
    network.more_areas = ("south",)
    network.policy = network.policy.model_copy(update={"contribute_without_profile": False})
    network.initial_profiles = tmp_path / "profiles.json"
    network.initial_profiles.write_text(json.dumps(profiles()), encoding="utf-8")
    participants = Participants(network)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "north")
        await network.start_node(nursery, 8, 8, "south", area="south")
        await network.wait_until(
            lambda: (
                min(len(recorded(network, area)) for area in AREAS) >= 3
                and any(AWAY in each for each in rosters(network, "north", -1))
            ),
            _WAIT_S,
        )
        await check_shown(network, participants)
        for name, area in (("north-grid", "south"), ("south-grid", "north"), ("supplier", "south")):
            refused = await participants.fetch(name, area)
            assert (refused.status_code, refused.json()["reason"]) == (403, "not_a_recipient")
        taken = await roll_out(network, profiles(version=2, supplier="another"))
        await network.wait_until(lambda: len(rosters(network, "north", taken)) >= 2, _WAIT_S)
        assert not [each for each in rosters(network, "north", taken) if AWAY in each]
        ledger.check(network)
        nursery.cancel_scope.cancel()
