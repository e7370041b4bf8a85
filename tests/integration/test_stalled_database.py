"""A database that stalls: rounds that run go on, and nobody is let in until it answers."""

from __future__ import annotations

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from coordinator.config import CoordinatorConfig, WebConfig
from coordinator.epoch_config import EpochConfig
from coordinator.metrics import CoordinatorMetrics
from coordinator.status import Status
from coordinator.storage.engine import open_engine
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from coordinator.threads import in_thread
from coordinator.web.app import make_app
from coordinator.web.serve import THREADS, serve
from loadtest.network import Network
from loadtest.ports import free_port
from node.security.module import KeyDirectory
from node.wan.enrolment import Enroller
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.link import LinkContext


async def test_rounds_go_on_while_the_database_stalls_and_revocations_hold(network: Network, postgresql: str) -> None:
    network.coordinator_config = CoordinatorConfig(
        listen=f"tcp://127.0.0.1:{free_port()}", web=WebConfig(listen=("https://127.0.0.1:0",)),
        data_dir=network.directory / "coordinator", database=postgresql, areas=(network.area,),
        epoch=EpochConfig(
            rounds=120, period_s=1.0, origin_unix_s=network.origin_unix_s, ring_size=8, corrupt=0.05, dropout=0.1,
            power=False,
        ),
    )  # fmt: skip
    network.gateways = 9
    store = Store(postgresql)
    heard: list[bytes] = []
    try:
        async with trio.open_nursery() as nursery:
            await network.start_meters(nursery)
            await network.start_coordinator(nursery)
            await network.start_node(nursery, 0, 8, "node")
            await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF])
            config = network.node_config(8, 1, "late")
            keys = KeyDirectory(config.data_dir / "keys", StandardSuite())
            module = keys.open(config.gateways[0].id)
            async with Enroller(config) as enroller:
                endpoint, server, *_ = await enroller.enrol(module, config.all_gateways()[0])
            with store.database.engine.connect() as locked:
                locked.execute(text("LOCK TABLE gateways IN ACCESS EXCLUSIVE MODE"))
                locked.execute(
                    text("UPDATE gateways SET status = 'revoked', revoked_ms = 0 WHERE gateway_id = :id"),
                    {"id": module.identity},
                )
                async with (
                    LinkContext(max_sockets=8) as link,
                    link.connect(endpoint, server, module.curve) as late,
                    trio.open_nursery() as knocking,
                ):

                    @knocking.start_soon
                    async def _knock() -> None:
                        await late.send(wire.encode(wire.Hello(wire.VERSION, -1, -1)))
                        heard.append(await late.receive())

                    before = len(network.ended())
                    await network.wait_until(
                        lambda: [each for each in network.ended()[before:] if each.roster == 0xFF][3:]
                    )
                    locked.commit()
                    await network.wait_until(lambda: len(network.ended()) > before + 7)
                    knocking.cancel_scope.cancel()
            keys.close()
            assert store.gateways.revoked() == [module.identity]
            nursery.cancel_scope.cancel()
        assert heard == [], "it was let in"
        assert network.flown("node").is_conserved
    finally:
        store.close()


def test_postgresql_gives_up_a_statement_that_waits_for_ever(postgresql: str) -> None:
    by_default, impatient = open_engine(postgresql), open_engine(f"{postgresql}?options=-c%20statement_timeout%3D200")
    with by_default.connect() as one, impatient.connect() as other:
        assert one.scalar(text("SHOW statement_timeout")) == "1min"
        one.execute(text("SELECT pg_advisory_xact_lock(7)"))
        with pytest.raises(OperationalError, match="statement timeout"):
            other.execute(text("SELECT pg_advisory_xact_lock(7)"))
    by_default.dispose()
    impatient.dispose()


class Nothing:
    """A service without rings."""

    def status(self) -> Status:
        return Status(1, (), 0, 0)

    async def changed(self, revision: int) -> None:
        await trio.sleep_forever()

    def described(self) -> str | None:
        return None

    def not_ready(self) -> str | None:
        return None


async def test_waiting_viewers_delay_neither_rounds_nor_metrics(postgresql: str) -> None:
    store = Store(postgresql)
    members = tuple(f"ESTK{number:010}" for number in range(3))
    store.epochs.add(EpochRecord(1, "north", DEFAULT_SCHEMA, 96, 0, 900), [RingLayout(1, 0, members)])
    ended = Ended(1, 0, 0, wire.Outcome.VOID, 0, 0, 0, 0, (), False, "no total in time", 0.0, 1.0)
    app = make_app(store, Nothing(), CoordinatorMetrics(CollectorRegistry()))
    try:
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(serve, app, ["http://127.0.0.1:0"])
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
                with store.database.engine.connect() as locked:
                    locked.execute(text("LOCK TABLE gateways IN ACCESS EXCLUSIVE MODE"))
                    answers: list[int] = []

                    async def look() -> None:
                        answers.append((await client.get("/api/v1/gateways")).status_code)

                    async with trio.open_nursery() as viewers:
                        for _ in range(40):
                            viewers.start_soon(look)
                        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                        with trio.fail_after(120):
                            while locked.scalar(waiting) < THREADS:
                                await trio.sleep(0.02)
                            assert "stromkreis_rounds_total" in (await client.get("/metrics")).text
                            assert (await client.get("/readyz")).status_code == 200
                            assert await in_thread(store.rounds.record, ended)
                            assert answers == []
                        locked.rollback()
                assert answers == [200] * 40
            nursery.cancel_scope.cancel()
    finally:
        store.close()
