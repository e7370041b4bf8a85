"""A coordinator killed while another stands by, and ring services that share the areas of one database."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
import tomli_w
import trio
from pydantic import SecretStr

from coordinator.config import CoordinatorConfig, DeclaredToken, Role, WebConfig
from coordinator.epoch_config import EarlyEpochConfig, EpochConfig
from coordinator.process import run
from coordinator.storage.store import Store
from loadtest.children import process
from loadtest.network import Network, Program, started
from loadtest.ports import free_port
from protocol.dcnet.machines.effects import Ended
from protocol.wire import Outcome

TOKEN = f"stk_{'declared-token-' * 4}"
LIMIT_S = 240.0  # a machine under load starts three processes


def config_of(network: Network, database: str | None, **settings: object) -> CoordinatorConfig:
    token = network.directory / "token"
    token.write_text(TOKEN)
    return CoordinatorConfig(
        listen=f"tcp://127.0.0.1:{free_port()}", data_dir=network.directory / "coordinator", database=database,
        areas=(network.area,), declared_tokens=(DeclaredToken(file=token, uses=16),),
        web=WebConfig(listen=(f"https://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")),
        epoch=EpochConfig(
            rounds=300, period_s=network.period_s, origin_unix_s=network.origin_unix_s, ring_size=8, corrupt=0.05,
            dropout=0.1, power=False,
            early=EarlyEpochConfig(void_rounds=0, waiting=1.0),
        ),
    ).model_copy(update=settings)  # fmt: skip


def opened(network: Network) -> list[Ended]:
    return [each for each in network.ended() if each.outcome is Outcome.OPENED]


def asked(config: CoordinatorConfig, path: str) -> tuple[int, str]:
    """What a coordinator answers at its http address; 0 where nobody listens."""
    try:
        answer = httpx.get(f"{config.web.listen[1]}{path}", timeout=20)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.text


def is_active(config: CoordinatorConfig, term: int) -> bool:
    return asked(config, "/readyz") == (200, f"ok\nring service: active, term {term}\n")


@pytest.mark.rounds
async def test_a_standby_goes_on_with_the_rings_of_a_killed_or_hanging_one(network: Network, any_database: str) -> None:
    network.period_s = 5.0
    network.origin_unix_s += 20
    first = config_of(network, any_database, standby=True)
    web = WebConfig(listen=(first.web.listen[0], f"http://127.0.0.1:{free_port()}"))  # https is the active one's
    second = first.model_copy(update={"web": web})
    network.coordinator_config, network.web = first, [first.web.listen[0]]
    files = []
    for name, config in (("first", first), ("second", second)):
        files.append(network.directory / f"{name}.toml")
        values = config.model_dump(mode="json", exclude_none=True)
        files[-1].write_text(tomli_w.dumps({"coordinator": values}), encoding="utf-8")

    def start(children: ExitStack, file: Path) -> subprocess.Popen[bytes]:
        return children.enter_context(process(network, "-m", "stromkreis", "coordinator", "--config", str(file)))

    async with trio.open_nursery() as nursery:
        with ExitStack() as children:
            active = start(children, files[0])
            await network.start_meters(nursery)
            await network.wait_until(partial(is_active, first, 1), LIMIT_S)
            hanging = start(children, files[1])
            await network.wait_until(lambda: asked(second, "/readyz")[0] == 503, LIMIT_S)
            assert "is the ring service of area north (term 1)" in asked(second, "/readyz")[1]
            assert asked(second, "/healthz") == (200, "ok\n")
            assert "stromkreis_ring_service_active 0.0" in asked(second, "/metrics")[1]
            assert asked(second, "/api/v1/gateways")[0] == 404
            network.token = SecretStr(TOKEN)
            await network.start_node(nursery, 0, 8, "node")
            await network.wait_until(lambda: opened(network)[2:], LIMIT_S)
            active.kill()
            active.wait()
            before = {(each.epoch, each.ring, each.round): each for each in network.ended()}
            running = {each.epoch for each in before.values()}
            await network.wait_until(partial(is_active, second, 2), LIMIT_S)
            assert "stromkreis_ring_service_active 1.0" in asked(second, "/metrics")[1]
            await network.wait_until(
                lambda: [e for e in opened(network) if e.epoch in running and (e.epoch, e.ring, e.round) not in before][
                    1:
                ],
                LIMIT_S,
            )
            start(children, files[0])
            await network.wait_until(lambda: "(term 2)" in asked(first, "/readyz")[1], LIMIT_S)
            hanging.send_signal(signal.SIGSTOP)  # it has the port that gateways call, and the other one wants it
            await network.wait_until(partial(is_active, first, 3), LIMIT_S)
            assert hanging.wait() == -signal.SIGKILL
            since = len(opened(network))
            await network.wait_until(lambda: opened(network)[since + 1 :], LIMIT_S)
        nursery.cancel_scope.cancel()
    after = {(each.epoch, each.ring, each.round): each for each in network.ended()}
    assert before.items() <= after.items()
    assert network.flown("node").is_conserved


async def test_ring_services_share_the_areas_of_one_database(network: Network, postgresql: str) -> None:
    network.period_s = 4.0
    gwa = config_of(network, postgresql, role=Role.GWA)
    south = gwa.model_copy(
        update={
            "role": Role.RINGS, "areas": ("south",), "listen": f"tcp://127.0.0.1:{free_port()}",
            "web": WebConfig(listen=("http://127.0.0.1:0",)),
        }
    )  # fmt: skip
    north = south.model_copy(update={"areas": ("north",), "listen": f"tcp://127.0.0.1:{free_port()}"})
    gwa = gwa.model_copy(update={"endpoints": {"south": south.listen}, "public_endpoint": north.listen})
    network.coordinator_config, network.token, network.gateways = gwa, SecretStr(TOKEN), 16
    program = Program()
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        network.web = await started(nursery, partial(run, gwa))
        await started(nursery, partial(run, north), program)
        await started(nursery, partial(run, south))
        await network.start_node(nursery, 0, 8, "north", area="north")
        await network.start_node(nursery, 8, 8, "south", area="south")
        areas: dict[str, set[int]] = {}

        def both_open() -> bool:
            store = Store(gwa.database_url)
            for each in store.epochs.all():
                areas.setdefault(each.area, set()).add(each.epoch)
            store.close()
            numbers = [each.epoch for each in opened(network)]
            return all(len([n for n in numbers if n in areas.get(area, ())]) >= 2 for area in ("north", "south"))

        await network.wait_until(both_open, LIMIT_S)
        program.cancel()  # of the north's: the south's rings do not care
        seen = len(opened(network))
        await network.wait_until(lambda: len(opened(network)) >= seen + 3, LIMIT_S)
        await started(nursery, partial(run, north))
        newest = max(opened(network), key=lambda each: each.round).round
        await network.wait_until(
            lambda: [e for e in opened(network) if e.epoch in areas["north"] and e.round > newest + 1], LIMIT_S
        )
        nursery.cancel_scope.cancel()
    assert not areas["north"] & areas["south"]
    assert network.flown("north", "south").is_conserved
