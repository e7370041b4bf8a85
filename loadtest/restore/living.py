"""A network of real processes whose data a drill may take away: a coordinator and two nodes; meters run in this one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import tomli_w
import trio
from pydantic import SecretStr

from coordinator.config import CoordinatorConfig, WebConfig
from coordinator.epoch_config import EpochConfig
from coordinator.gwa.enrolment import Directory
from coordinator.storage.store import Store
from loadtest.children import config_file
from loadtest.network import Network
from loadtest.ports import free_port
from loadtest.truth import RoundRow

STEADY, AWAY = ("steady", 0, 6), ("away", 6, 2)  # node, first gateway, how many
GATEWAYS = 8
_ROOT = Path(__file__).parents[2]
_POLL_S = 0.3


@dataclass(slots=True)
class Living:
    """The processes by name; `lost` are rounds that a restore took out of the database, or may have."""

    network: Network
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    lost: dict[tuple[int, int, int], RoundRow] = field(default_factory=dict)

    async def start(self, nursery: trio.Nursery) -> None:
        """Meters, coordinator, both nodes; returns once all gateways were in a total."""
        network = self.network
        await network.start_meters(nursery)
        web = f"https://127.0.0.1:{free_port()}"
        network.web = [web]
        network.coordinator_config = CoordinatorConfig(
            listen=f"tcp://127.0.0.1:{free_port()}", web=WebConfig(listen=(web,)),
            data_dir=network.directory / "coordinator", areas=(network.area,),
            epoch=EpochConfig(
                rounds=network.rounds, period_s=network.period_s, origin_unix_s=network.origin_unix_s,
                ring_size=network.ring_size, power=network.power, corrupt=0.05, dropout=network.dropout,
            ),
        )  # fmt: skip
        values = network.coordinator_config.model_dump(mode="json", exclude_none=True)
        self.coordinator_file.write_text(tomli_w.dumps({"coordinator": values}), encoding="utf-8")
        self.run("coordinator", "coordinator", "--config", str(self.coordinator_file))
        database = network.directory / "coordinator" / "coordinator.sqlite"
        await self._until(lambda: database.exists() and (network.directory / "coordinator" / "curve.json").exists())
        store = Store(network.coordinator_config.database_url)
        token = Directory(store.gateways).create_token(datetime.now(UTC), uses=GATEWAYS, area=network.area)
        store.close()
        network.token = SecretStr(token)
        for name, first, count in (STEADY, AWAY):
            self.run_node(name, str(config_file(network, first, count, name)))
        await self.until_all(-1)

    @property
    def coordinator_file(self) -> Path:
        """The coordinator's configuration."""
        return self.network.directory / "coordinator.toml"

    def run(self, name: str, *arguments: str) -> None:
        """Run `stromkreis` with these arguments, as a process of its own."""
        with (self.network.directory / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "stromkreis", *arguments], stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"},
                cwd=self.network.directory,
            )  # fmt: skip

    def run_node(self, name: str, config: str) -> None:
        """Run a node."""
        self.run(name, "node", "--config", config)

    def restart_coordinator(self) -> None:
        """Run it again on what is in its directory now."""
        self.run("coordinator", "coordinator", "--config", str(self.coordinator_file))

    def restart_away(self) -> None:
        """Run the smaller node again on what is in its directory now."""
        self.run_node("away", str(self.network.directory / "away.toml"))

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop a process and wait for its end."""
        child = self.processes.pop(name)
        child.send_signal(how)
        child.wait(timeout=30)

    def kill_all(self) -> None:
        """End every process that is left."""
        for child in self.processes.values():
            child.kill()
            child.wait()
        self.processes.clear()

    def log_of(self, name: str) -> str:
        """What a process has said so far."""
        return (self.network.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def rows(self) -> list[RoundRow]:
        """Every round that ended, also those that a restore took away."""
        now = {(each.epoch, each.ring, each.round): each for each in self.network.rows(self.network.ended())}
        return list((self.lost | now).values())

    def remember(self) -> None:
        """Keep what is in the database now: a restore follows."""
        self.lost = {(each.epoch, each.ring, each.round): each for each in self.rows()}

    async def until_all(self, since_q: int, rounds: int = 2, without: str = "") -> float:
        """
        Wait for totals of quarter hours after `since_q` with everybody in them, except `without`, which must not be.

        Returns how long it took, in s.
        """
        began, expected = time.monotonic(), GATEWAYS - bool(without)

        def is_reached() -> bool:
            fresh = [each for each in self.rows() if each.q > since_q and each.opened]
            full = [each for each in fresh if len(each.roster) == expected and without not in each.roster]
            return len(full) >= rounds

        await self._until(is_reached)
        return time.monotonic() - began

    def last_q(self) -> int:
        """The quarter hour of the newest round that ended, -1 before the first."""
        return max((each.q for each in self.rows()), default=-1)

    async def _until(self, condition: Callable[[], bool], timeout_s: float = 300.0) -> None:
        with trio.fail_after(timeout_s):
            while not await trio.to_thread.run_sync(condition):
                dead = [name for name, child in self.processes.items() if child.poll() is not None]
                if dead:
                    raise RuntimeError(f"{dead[0]} has ended: {self.log_of(dead[0])[-2000:]}")
                await trio.sleep(_POLL_S)
