"""Which totals a market participant is shown: by its certificate, and by what the calls of the epochs said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography.hazmat.primitives import hashes
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from coordinator.config import CoordinatorConfig, WebConfig
from coordinator.emp.participant_totals import ParticipantTotals
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import certified_key
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.metrics import CoordinatorMetrics
from coordinator.recipients import TotalsRecipient
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from coordinator.web.participant_totals import COLUMNS, TOTALS_PATH, serve_totals
from loadtest.ports import free_port
from protocol import pki
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Schema
from protocol.errors import RemoteProtocolError
from protocol.link.tls import client_context
from protocol.wire import Outcome
from stromkreis.__main__ import build

now = partial(datetime.now, UTC)
START = 1_700_000_100
SPAN = START, START + 86_400
IMPORT, EXPORT = "1-0:1.8.0*255", "1-0:2.8.0*255"
MEMBERS = tuple(f"ESTK01{n:08d}" for n in range(4))


def schema(*by_slot: tuple[str, ...]) -> Schema:
    count, *energies = DEFAULT_SCHEMA.without_power().slots
    return Schema((count, *(replace(slot, recipients=names) for slot, names in zip(energies, by_slot, strict=True))))


NORTH = EpochRecord(1, "Nord", schema(("grid", "supplier"), ("grid",)), 2, START, 900)
LATER = EpochRecord(3, "Nord", schema(("grid",), ("grid",)), 2, START + 1_800, 900)
SOUTH = EpochRecord(2, "Ost", schema(("east",), ("east",)), 4, START, 900)
FORMER = EpochRecord(4, "Alt", schema((), ()), 4, START, 900)


def ended(epoch: int, round_: int, *sums: int) -> Ended:
    return Ended(
        epoch, 0, round_, Outcome.OPENED, attempt=0, term=0, expected=0b1111, roster=0b1111, total=(4, *sums),
        verified=False, reason="", opened_s=START, ended_s=START + 1,
    )  # fmt: skip


def fill(store: Store) -> None:
    for each in (NORTH, SOUTH, LATER, FORMER):
        store.epochs.add(each, [RingLayout(each.epoch, 0, MEMBERS)])
    rounds = [ended(1, 0, 1_005, 7), ended(1, 1, 20, 8), ended(2, 0, 300, 9), ended(3, 0, 4_000, 10), ended(4, 0, 5, 5)]
    store.rounds.record_many(rounds)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    fill(made)
    yield made
    made.close()


@dataclass
class Served:
    """The participants' server over a store; `client` is a participant with a certificate of this name."""

    path: Path
    store: Store

    def __post_init__(self) -> None:
        self.authority = CertificateAuthority.create(self.path / "pki", now(), hosts=("127.0.0.1",))
        names = {name: self.certificate(name) for name in ("grid", "supplier", "east", "old-east")}
        publisher = RevocationPublisher(self.path / "pki", self.authority, self.store.certificates)
        recipients = [
            TotalsRecipient(participant="grid", certificates=(names["grid"],)),
            TotalsRecipient(participant="supplier", certificates=(names["supplier"],)),
            TotalsRecipient(participant="east", certificates=(names["old-east"], names["east"])),
        ]
        self.totals = ParticipantTotals(
            self.store,
            recipients,
            self.authority.root,
            self.authority.sub_ca,
            publisher.lists,
            now,
        )
        self.address = f"https://127.0.0.1:{free_port()}"

    def certificate(self, name: str, role: pki.Role = pki.Role.PARTICIPANT_TLS) -> str:
        """Make it; its SHA-256."""
        made = certified_key(self.path / "emp", name, self.authority, role, now(), organisation=name).certificate
        return made.fingerprint(hashes.SHA256()).hex()

    def pem(self, name: str) -> str:
        return (self.path / "emp" / f"{name}.pem").read_text()

    @asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[httpx.AsyncClient]:
        folder = self.path / "emp"
        context = client_context(
            self.path / "pki" / "root.pem", chain=folder / f"{name}.pem", key=folder / f"{name}.key"
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=self.address, verify=context, timeout=60) as client:
            yield client

    async def get(self, name: str, path: str = TOTALS_PATH, **query: Any) -> httpx.Response:
        whole = {"from": "2023-11-14T00:00:00Z", "to": "2023-11-16T00:00:00Z"} | query
        async with self.client(name) as client:
            return await client.get(path, params=whole)


@pytest.fixture
async def served(tmp_path: Path, store: Store) -> AsyncIterator[Served]:
    made = Served(tmp_path, store)
    config = CoordinatorConfig(data_dir=tmp_path, pki_dir=tmp_path / "pki", web=WebConfig(totals=made.address))
    async with trio.open_nursery() as nursery:
        await serve_totals(nursery, config, made.totals, CoordinatorMetrics(CollectorRegistry()))
        yield made
        nursery.cancel_scope.cancel()


def values(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return [{each["name"]: each["value"] for each in item["values"]} for item in answer.json()["items"]]


async def test_each_is_shown_its_own_totals_exactly(served: Served) -> None:
    assert values(await served.get("grid", area="Nord")) == [
        {"gateways": "4", "energy_import": "1005", "energy_export": "7"},
        {"gateways": "4", "energy_import": "20", "energy_export": "8"},
        {"gateways": "4", "energy_import": "4000", "energy_export": "10"},
    ]
    for name in ("east", "old-east"):
        assert values(await served.get(name, area="Ost")) == [
            {"gateways": "4", "energy_import": "300", "energy_export": "9"}
        ]
    assert values(await served.get("supplier", area="Nord")) == [
        {"gateways": "4", "energy_import": "1005"},
        {"gateways": "4", "energy_import": "20"},
    ], "neither a register nor an epoch whose call did not name it"


@pytest.mark.parametrize(
    ("name", "area"), [("grid", "Ost"), ("supplier", "Ost"), ("east", "Nord"), ("grid", "Alt"), ("grid", "nowhere")]
)
async def test_the_totals_of_others_are_refused_as_such_that_there_are_not(
    served: Served, name: str, area: str
) -> None:
    for path in (TOTALS_PATH, f"{TOTALS_PATH}.csv"):
        answer = await served.get(name, path, area=area)
        assert (answer.status_code, answer.json()["reason"]) == (403, "not_a_recipient")
        assert answer.json()["detail"] == f"no totals of area {area} are for {name}"


async def test_areas_and_their_registers_are_those_that_calls_named(served: Served) -> None:
    told = {name: (await served.get(name, "/emp/v1/areas")).json() for name in ("grid", "supplier", "east")}
    assert told == {
        "grid": {"participant": "grid", "areas": [{"area": "Nord", "registers": [IMPORT, EXPORT]}]},
        "supplier": {"participant": "supplier", "areas": [{"area": "Nord", "registers": [IMPORT]}]},
        "east": {"participant": "east", "areas": [{"area": "Ost", "registers": [IMPORT, EXPORT]}]},
    }


async def test_pages_follow_each_other_and_the_csv_has_all(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.web.participant_totals._PAGE", 1)
    first = (await served.get("grid", area="Nord", limit=2)).json()
    (third,) = values(await served.get("grid", area="Nord", limit=2, **{"from": first["next"]}))
    assert (len(first["items"]), third["energy_import"]) == (2, "4000")
    head, *lines = (await served.get("grid", f"{TOTALS_PATH}.csv", area="Nord")).text.splitlines()
    assert head == ",".join(COLUMNS)
    assert [line.split(",")[5] for line in lines] == ["4", "100.5", "0.7", "4", "2.0", "0.8", "4", "400.0", "1.0"]
    assert lines[1] == f"2023-11-14T22:15:00Z,900,Nord,energy_import,{IMPORT},100.5,Wh,4,4,1,1,0"


async def test_who_is_no_recipient_is_refused(served: Served) -> None:
    served.certificate("stranger")
    answer = await served.get("stranger", area="Nord")
    assert (answer.status_code, answer.json()["reason"]) == (403, "not_a_recipient")
    async with httpx.AsyncClient(verify=client_context(served.path / "pki" / "root.pem")) as nobody:
        with pytest.raises(httpx.TransportError):
            await nobody.get(f"{served.address}{TOTALS_PATH}", params={"area": "Nord"})


def test_a_certificate_of_another_kind_or_without_a_list_is_refused(tmp_path: Path, store: Store) -> None:
    made = Served(tmp_path, store)
    made.certificate("signer", pki.Role.PARTICIPANT_SIGNATURE)
    with pytest.raises(RemoteProtocolError, match="key_usage"):
        made.totals.participant(made.pem("signer"))
    listless = ParticipantTotals(
        store,
        [],
        made.authority.root,
        made.authority.sub_ca,
        lambda _: pki.RevocationLists(),
        now,
    )
    with pytest.raises(RemoteProtocolError, match="revocation_unknown"):
        listless.participant(made.pem("grid"))


def test_the_operators_sum_over_areas_does_not_ask_for_whom_they_are(any_store: Store) -> None:
    fill(any_store)
    assert [each.words for each in any_store.totals.totals(*SPAN, participant="supplier")] == [
        (4, 1_005, 7),
        (4, 20, 8),
    ]
    assert any_store.totals.totals(*SPAN, participant="nobody") == []
    first = any_store.totals.totals(*SPAN)[0]
    assert (first.words, first.members) == ((12, 1_310, 21), 12)
    assert first.schema == DEFAULT_SCHEMA.without_power()


async def test_the_commands_make_a_certificate_and_fetch_by_it(served: Served, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(build(arguments), arguments)

    async def answer(*arguments: str) -> Any:
        return await trio.to_thread.run_sync(partial(run, *arguments))

    folder = tmp_path / "stadtwerke"
    made = await answer("pki", "participant", "Stadtwerke", "--out", str(folder), "--pki", str(tmp_path / "pki"))
    fingerprint = made.output.split()[-1]
    served.totals._by_certificate[fingerprint] = "supplier"
    options = [
        "--server", served.address, "--area", "Nord", "--from", "2023-11-14", "--to", "2023-11-16",
        "--certificate", str(folder / "Stadtwerke-tls.pem"), "--key", str(folder / "Stadtwerke-tls.key"),
        "--pki-root", str(tmp_path / "pki" / "root.pem"),
    ]  # fmt: skip
    file = tmp_path / "nord.csv"
    fetched = await answer("emp", "totals", str(file), *options)
    assert fetched.exit_code == 0, fetched.output
    assert fetched.output == f"4 values in {file}\n"
    assert file.read_text().count("energy_import") == 2
    refused = await answer("emp", "totals", str(tmp_path / "ost.csv"), *options, "--area", "Ost")
    assert "not_a_recipient: no totals of area Ost are for supplier" in str(refused.exception)
    assert not (tmp_path / "ost.csv").exists()
    assert "it is there already" in str((await answer("emp", "totals", str(file), *options)).exception)
