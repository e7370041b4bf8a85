"""A coordinator whose disk is full or whose database fails: nothing leaves that is not durable, and it lives on."""

import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import tomli_w
import trio
from pydantic import SecretStr
from sqlalchemy import text

from coordinator.config import CoordinatorConfig, WebConfig
from coordinator.epoch_config import EpochConfig
from coordinator.events import Event, MessagesReady, StoreFailed, To
from coordinator.gwa.ca import ROOT_FILE
from coordinator.gwa.enrolment import Directory
from coordinator.rings.areas import SETTLE_S, Areas
from coordinator.rings.epoch_writer import EpochWriter
from coordinator.rings.epochs import AreaEpoch, Phase
from coordinator.rings.numbers import EpochNumbers
from coordinator.storage.irrevocable import FILE_NAME, IrrevocableLog
from coordinator.storage.store import Store
from loadtest.coordination import lay_out
from loadtest.network import Network
from loadtest.ports import free_port
from node.security.module import KeyDirectory
from node.wan.enrolment import Enroller, RingService
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.rings import last_contribution_text
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import StromkreisError
from protocol.link import LinkContext
from protocol.link.tls import client_context

ROOT = Path(__file__).parents[2]
NOW_S = 1_772_000_000.0


def run_sql(path: Path, *statements: str) -> None:
    with sqlite3.connect(path, timeout=30) as database:
        for each in statements:
            database.execute(each)
    database.close()


# --- a full disk, the process and its limit being real -------------------------------------------------------------


async def test_a_full_disk_costs_an_epoch_and_the_next_one_runs(network: Network) -> None:
    network.origin_unix_s += 8
    data, log = network.directory / "coordinator", network.directory / "coordinator.log"
    config = CoordinatorConfig(
        listen=f"tcp://127.0.0.1:{free_port()}", web=WebConfig(listen=("https://127.0.0.1:0", "http://127.0.0.1:0")),
        data_dir=data, areas=(network.area,),
        epoch=EpochConfig(
            rounds=120, period_s=1.0, origin_unix_s=network.origin_unix_s, ring_size=8, corrupt=0.05, dropout=0.1,
            power=False,
        ),
    )  # fmt: skip
    written = network.directory / "coordinator.toml"
    written.write_text(
        tomli_w.dumps({"coordinator": config.model_dump(mode="json", exclude_none=True)}), encoding="utf-8"
    )
    store = Store(config.database_url)
    network.token = SecretStr(Directory(store.gateways).create_token(datetime.now(UTC), uses=8))
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "stromkreis", "coordinator", "--config", str(written)], stdout=output,
            stderr=output, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, cwd=network.directory,
        )  # fmt: skip
    try:
        await network.wait_until(lambda: "gateways call at" in log.read_text())
        secure, plain = re.findall(r"(https?://127\.0\.0\.1:\d+)", log.read_text())[-2:]
        network.coordinator_config, network.web = config, [secure]

        def enrolled() -> bool:
            with store.database.read() as connection:
                return bool(connection.scalar(text("SELECT count(*) FROM gateways")) == 8)

        async with trio.open_nursery() as nursery:
            await network.start_meters(nursery)
            await network.start_node(nursery, 0, 8, "node")
            await network.wait_until(enrolled)
            size = (data / "coordinator.sqlite-wal").stat().st_size
            _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (size, hard))
            await network.wait_until(lambda: "could not be made durable in time" in log.read_text())
            assert store.epochs.latest() == []
            async with httpx.AsyncClient(timeout=120) as client:
                metrics = (await client.get(f"{plain}/metrics")).text
            (errors,) = re.findall(
                r'^stromkreis_peer_errors_total\{reason="store_error"\} (\S+)', metrics, re.MULTILINE
            )
            assert float(errors) > 0
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (hard, hard))
            await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF][1:])
            assert child.poll() is None
            assert min(each.epoch for each in network.ended()) > 0
            nursery.cancel_scope.cancel()
    finally:
        store.close()
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert re.search(
        r"epoch \d+ of area north cannot be kept, its gateways wait: (disk I/O error|.* full)", log.read_text()
    )
    flown = network.flown("node")
    assert flown.gateways == 8
    assert flown.is_conserved


# --- a database that refuses one area, or cannot be read ------------------------------------------------------------


class Keeping:
    """An `EpochWriter` on a real database, and epochs of two areas whose gateways have all joined."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(f"sqlite:///{path}")
        self.sent: list[To] = []
        self.failed: list[StoreFailed] = []
        irrevocable = IrrevocableLog(path.with_name(FILE_NAME))
        self.keeper = EpochWriter(self.store.epochs, irrevocable, self._emit, self.store.enrolment_log)
        areas = Areas(
            StandardSuite(), EpochConfig(), lambda _: DEFAULT_SCHEMA, [], ["north", "south"], bytes, EpochNumbers(),
            lambda _: bytes(64),
        )  # fmt: skip
        for area in areas.areas.values():
            for index in range(8):
                areas.arrive(area, f"{area.name}{index}", NOW_S)
        self.layouts: dict[str, list[To]] = {}
        self.epochs: dict[str, AreaEpoch] = {}
        for area, epoch in areas.call_due(NOW_S + SETTLE_S):
            self.layouts[area.name] = lay_out(epoch, sorted(area.present), NOW_S + SETTLE_S)
            self.epochs[area.name] = epoch
            assert epoch.phase is Phase.DEALING

    def _emit(self, event: Event) -> None:
        match event:
            case MessagesReady(messages):
                self.sent += messages
            case StoreFailed():
                self.failed.append(event)

    def refuse_the_south(self) -> None:
        run_sql(
            self.path, "CREATE TRIGGER refuse BEFORE INSERT ON epochs WHEN NEW.area = 'south'"
            " BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )  # fmt: skip

    def keep_all(self) -> None:
        for name, epoch in self.epochs.items():
            self.keeper.keep(epoch, self.layouts[name])

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(120):
            while not condition():
                await trio.sleep(0.01)


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    made = Keeping(tmp_path / "coordinator.sqlite")
    yield made
    made.store.close()


async def test_an_area_whose_layout_cannot_be_kept_waits_alone(
    keeping: Keeping, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    keeping.refuse_the_south()
    south, north = keeping.epochs["south"], keeping.epochs["north"]
    keeping.keep_all()
    nursery.start_soon(keeping.keeper.run)
    await keeping.until(lambda: len(keeping.failed) > 1)
    assert keeping.sent == keeping.layouts["north"]
    assert (keeping.keeper.holds(south), keeping.keeper.holds(north)) == (True, False)
    what = "epoch 1 of area south cannot be kept, its gateways wait"
    assert keeping.failed[0] == StoreFailed(what, "database or disk is full")
    keeping.keeper.greet(south, "south3", lambda: south.invite("south3"))
    keeping.keeper.greet(north, "north3", lambda: north.invite("north3"))
    told = [each.message for each in keeping.sent[len(keeping.layouts["north"]) :]]
    assert [type(each) for each in told] == [wire.EpochCall, wire.EpochList, wire.EpochLayout], (
        "who can be told is told at once"
    )
    before = len(keeping.sent)
    run_sql(keeping.path, "DROP TRIGGER refuse")
    await keeping.until(lambda: not keeping.keeper.holds(south))
    assert keeping.sent[before:] == [*keeping.layouts["south"], *south.invite("south3")]
    assert keeping.store.epochs.layout(south.call.epoch)[0].members == tuple(south.rings[0].positions)
    assert len(keeping.store.epochs.states()) == 2


async def test_an_epoch_that_was_given_up_says_no_layout_and_leaves_no_key(
    keeping: Keeping, nursery: trio.Nursery
) -> None:
    keeping.refuse_the_south()
    south = keeping.epochs["south"]
    keeping.keep_all()
    nursery.start_soon(keeping.keeper.run)
    await keeping.until(lambda: keeping.failed)
    out = south.give_up("the disk is full")
    keeping.keeper.drop(south.call.epoch)
    assert out == [To(f"south{index}", wire.Refused(1, "the disk is full")) for index in range(8)]
    run_sql(keeping.path, "DROP TRIGGER refuse")
    keeping.keeper.drop(keeping.epochs["north"].call.epoch)
    await keeping.until(lambda: not keeping.store.epochs.states())
    assert keeping.sent == keeping.layouts["north"]
    assert keeping.store.epochs.last_number() == 0


async def test_an_epoch_that_is_given_up_while_it_is_written_says_no_layout(
    keeping: Keeping, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    south, writing, go_on = keeping.epochs["south"], threading.Event(), threading.Event()
    save_state = keeping.store.epochs.save_state

    def slow(epoch: int, state: bytes) -> None:
        writing.set()
        assert go_on.wait(60)
        save_state(epoch, state)

    monkeypatch.setattr(keeping.store.epochs, "save_state", slow)
    keeping.keeper.keep(south, keeping.layouts["south"])
    nursery.start_soon(keeping.keeper.run)
    await keeping.until(writing.is_set)
    south.give_up("its gateways would have to deal by now")
    keeping.keeper.drop(south.call.epoch)
    go_on.set()
    keeping.keeper.keep(keeping.epochs["north"], keeping.layouts["north"])
    await keeping.until(lambda: len(keeping.store.epochs.states()) == 1 and keeping.sent)
    assert keeping.sent == keeping.layouts["north"]
    assert not keeping.keeper.holds(south)


async def test_a_layout_that_was_written_unheard_is_not_written_twice(keeping: Keeping, nursery: trio.Nursery) -> None:
    """A connection that breaks at the commit: the rows are there, and nobody was told so."""
    epoch = keeping.epochs["north"]
    run_sql(keeping.path, "CREATE TRIGGER refuse BEFORE INSERT ON epoch_states BEGIN SELECT RAISE(FAIL, 'broken'); END")
    keeping.keeper.keep(epoch, keeping.layouts["north"])
    nursery.start_soon(keeping.keeper.run)
    await keeping.until(lambda: keeping.failed)
    assert (keeping.store.epochs.last_number(), keeping.sent) == (0, [])
    run_sql(keeping.path, "DROP TRIGGER refuse")
    await keeping.until(lambda: keeping.sent)
    assert keeping.sent == keeping.layouts["north"]


async def test_gateways_join_although_the_directory_cannot_be_read_for_a_while(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("coordinator.gwa.admission.EXPEL_S", 0.2)
    network.rounds = 6
    path = network.directory / "coordinator" / "coordinator.sqlite"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF])
        root = client_context(network.directory / "coordinator" / "pki" / ROOT_FILE)
        async with httpx.AsyncClient(verify=root) as client:
            while "stromkreis_gateways_enrolled 8.0" not in (await client.get(f"{network.web[0]}/metrics")).text:
                await trio.sleep(0.05)
        run_sql(path, "ALTER TABLE gateways RENAME TO hidden")
        await network.wait_until(lambda: "gateways wait to join: no such table: gateways" in caplog.text)
        async with httpx.AsyncClient(verify=root) as client:
            metrics = (await client.get(f"{network.web[0]}/metrics")).text
        run_sql(path, "ALTER TABLE hidden RENAME TO gateways")
        seen = network.ended()[-1].epoch
        await network.wait_until(lambda: [e for e in network.ended() if e.epoch > seen and e.roster == 0xFF])
        nursery.cancel_scope.cancel()
    assert "stromkreis_gateways_enrolled 8.0" in metrics
    assert re.search(r'stromkreis_peer_errors_total\{reason="store_error"\} [1-9]', metrics)
    assert network.flown("node").is_conserved


async def test_a_question_that_the_database_cannot_answer_ends_nothing(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    path = network.directory / "coordinator" / "coordinator.sqlite"
    question = wire.encode(wire.LastContributionRequest(7, 0, 0))
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 1, "node")
        keys = KeyDirectory(config.data_dir / "keys", StandardSuite())
        module = keys.open(config.gateways[0].id)
        async with Enroller(config) as enroller:
            endpoint, server, list_key, _ = await enroller.enrol(module, config.all_gateways()[0])
        run_sql(path, "ALTER TABLE gateways RENAME TO hidden", "ALTER TABLE rings RENAME TO hidden_rings")
        async with LinkContext(max_sockets=8) as link, link.connect(endpoint, server, module.curve) as connection:
            nursery.start_soon(connection.send, question)
            await network.wait_until(lambda: "nobody is let in: no such table: gateways" in caplog.text)
            run_sql(path, "ALTER TABLE hidden RENAME TO gateways")
            lost = "gateways get no answer, the round ledger cannot be read: no such table: rings"
            await network.wait_until(lambda: lost in caplog.text)
            run_sql(path, "ALTER TABLE hidden_rings RENAME TO rings")
            with trio.fail_after(120):
                await connection.send(question)
                answer: wire.Message | None = None
                while not isinstance(answer, wire.LastContribution):  # an epoch may be called meanwhile
                    answer = wire.decode(await connection.receive(), wire.FROM_COORDINATOR)
        keys.close()
        nursery.cancel_scope.cancel()
    assert answer == wire.LastContribution(7, 0, 0, -1, 0, -1, 0, b"", b"", answer.statement)
    text = last_contribution_text(module.identity, answer)
    assert StandardSuite().verify(list_key, text, answer.statement)


async def test_a_gateway_enrols_once_the_database_takes_it(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    path = network.directory / "coordinator" / "coordinator.sqlite"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 1, "node")
        keys = KeyDirectory(config.data_dir / "keys", StandardSuite())
        module = keys.open(config.gateways[0].id)
        run_sql(
            path, "CREATE TRIGGER refuse BEFORE INSERT ON gateways BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
        )  # fmt: skip
        answers: list[RingService] = []

        async def enrol() -> None:
            async with Enroller(config) as enroller:
                answers.append(await enroller.enrol(module, config.all_gateways()[0]))

        nursery.start_soon(enrol)
        told = "a web request gets no answer, the database fails: disk is full"
        await network.wait_until(lambda: caplog.text.count(told) > 1)
        assert answers == []
        run_sql(path, "DROP TRIGGER refuse")
        await network.wait_until(lambda: answers)
        store = Store(f"sqlite:///{path}")
        assert [each.gateway_id for each in store.gateways.page()] == [module.identity]
        store.close()
        keys.close()
        nursery.cancel_scope.cancel()


async def test_a_coordinator_whose_database_stays_broken_is_named(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.wan.enrolment._PATIENCE_S", 0.5)
    path = network.directory / "coordinator" / "coordinator.sqlite"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 1, "node")
        keys = KeyDirectory(config.data_dir / "keys", StandardSuite())
        run_sql(path, "ALTER TABLE gateways RENAME TO hidden")
        async with Enroller(config) as enroller:
            with pytest.raises(StromkreisError, match="its database fails, see its log; status 503"):
                await enroller.enrol(keys.open(config.gateways[0].id), config.all_gateways()[0])
        keys.close()
        nursery.cancel_scope.cancel()
