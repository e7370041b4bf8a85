"""The processes of a load test: prepared, started, stopped and killed, and started again on what they left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
import trio

from coordinator.config import CoordinatorConfig
from coordinator.gwa.ca import ROOT_FILE, CertificateAuthority
from coordinator.gwa.enrolment import Directory
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.store import Store
from loadtest.demo.processes import PROGRAM, Child, Children, DemoError
from loadtest.meters.meter_list import read_meter_list
from loadtest.ports import free_port
from loadtest.scenarios.http_get import get
from loadtest.scenarios.lines import Site, coordinator_name
from loadtest.scenarios.plan import (
    LOOPBACK,
    Calendar,
    NodePlan,
    Plan,
    coordinator_section,
    meters_config,
    node_section,
)

_START_TIMEOUT_S = 120.0
_HANG_TIMEOUT_S = 60.0
_POLL_S = 0.2


@dataclass(slots=True)
class Process:
    """A process that can be started again; `node` where it hosts gateways, else it is a coordinator."""

    name: str
    config: Path
    data: Path
    url: str
    node: NodePlan | None = None
    child: Child | None = None

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self.child is not None and self.child.process.poll() is None


@dataclass(slots=True)
class Installation:
    """All processes of one run, under the directory `work`."""

    plan: Plan
    calendar: Calendar
    site: Site
    work: Path
    group: Children
    program: Sequence[str] = PROGRAM
    coordinators: list[Process] = field(default_factory=list)
    standbys: list[Process] = field(default_factory=list)
    nodes: list[Process] = field(default_factory=list)
    meters: list[Child] = field(default_factory=list)
    configs: list[CoordinatorConfig] = field(default_factory=list)

    def prepare(self) -> None:
        """Certificates, tokens and the coordinators' configuration files."""
        for index, areas in enumerate(self.plan.areas):
            name = coordinator_name(index)
            section = coordinator_section(
                self.plan.scenario, areas, self.calendar, self.work / name, self.site.addresses[index]
            )
            config = CoordinatorConfig.model_validate(section)
            config.log_path.mkdir(mode=0o700)
            hosts = ("localhost", "127.0.0.1", self.site.host(name))
            CertificateAuthority.create(config.pki_path, datetime.now(UTC), hosts=tuple(dict.fromkeys(hosts)))
            path = self._write(name, {"coordinator": section})
            self.configs.append(config)
            self.coordinators.append(Process(name, path, config.data_dir, self.site.addresses[index].monitoring))
            if self.plan.scenario.standby:
                self._prepare_standby(f"{name}-standby", section, config)

    def _prepare_standby(self, name: str, section: dict[str, Any], config: CoordinatorConfig) -> None:
        """The same database, keys and addresses for gateways; another address for monitoring."""
        monitoring = f"http://{LOOPBACK}:{free_port()}"
        path = self._write(name, {"coordinator": section | {"web": {"listen": [config.web.listen[0], monitoring]}}})
        self.standbys.append(Process(name, path, config.data_dir, monitoring))

    @property
    def all_coordinators(self) -> list[Process]:
        """Those that began as the active ones, then those that began as their standbys."""
        return [*self.coordinators, *self.standbys]

    async def active(self) -> list[Process]:
        """The coordinators that are ring services now."""
        return [each for each in self.all_coordinators if each.is_up and await self.is_ready(each, "/readyz")]

    async def start(self) -> None:
        """Meters and coordinators, then gateways; returns when all processes run, not when all gateways are placed."""
        for process in self.coordinators:
            await self.start_process(process)
        for plan in self.plan.meters:
            config = meters_config(plan, self.calendar, self.work, self.site.host(plan.beside))
            path = self._write(plan.name, {"meters": config.model_dump(mode="json", exclude_none=True)})
            program = self.site.program(plan.beside, self.program)
            self.meters.append(await self.group.start(plan.name, ["meters", "--config", str(path)], program=program))
        await self._until(
            "the coordinators are ready", lambda: self.all_ready(self.coordinators, "/readyz"), _START_TIMEOUT_S
        )
        for process in self.standbys:  # now that the others have their leases
            await self.start_process(process)
        await self._until("the meters listen", self._meters_listen, _START_TIMEOUT_S)
        await trio.to_thread.run_sync(self._make_nodes)
        for process in self.nodes:
            await self.start_process(process)

    async def start_process(self, process: Process) -> None:
        """Start it, the first time or again."""
        kind = "coordinator" if process.node is None else "node"
        process.child = await self.group.start(
            process.name, [kind, "--config", str(process.config), "--log-format", "json"],
            program=self.site.program(process.name, self.program),
        )  # fmt: skip

    async def kill(self, process: Process) -> None:
        """SIGKILL, and wait for the end."""
        if process.child is not None:
            await self.group.kill(process.child)
        process.child = None

    async def hang(self, process: Process) -> None:
        """SIGSTOP, and wait until its watchdog has killed it.  Raises DemoError where nobody does."""
        if process.child is not None:
            process.child.ends = True
            process.child.process.send_signal(signal.SIGSTOP)
            with trio.move_on_after(_HANG_TIMEOUT_S):
                await process.child.process.wait()
                process.child = None
                return
            raise DemoError(f"{process.name} hangs, and nobody has killed it within {_HANG_TIMEOUT_S:g} s")

    async def stop(self, processes: Iterable[Process]) -> None:
        """SIGTERM, and wait for the end."""
        stopped = [each for each in processes if each.child is not None]
        await self.group.stop([each.child for each in stopped if each.child is not None])
        for each in stopped:
            each.child = None

    async def stop_all(self) -> None:
        """Gateways first: a coordinator that goes first leaves them asking."""
        await self.stop(self.nodes)
        await self.stop(self.standbys)
        await self.stop(self.coordinators)
        await self.group.stop(self.meters)

    async def is_ready(self, process: Process, path: str) -> bool:
        """Whether a process answers a readiness path with 200."""
        answer = await get(process.url + path, self.site.hub)
        return answer is not None and answer[0] == 200

    async def all_ready(self, processes: Iterable[Process], path: str) -> bool:
        """Whether all of them do."""
        for each in processes:
            if not await self.is_ready(each, path):
                return False
        return True

    def members(self, processes: Iterable[Process]) -> frozenset[str]:
        """The ids of their gateways."""
        return frozenset(each.id for process in processes if process.node for each in process.node.gateways)

    def give_new_keys(self, process: Process) -> None:
        """A node whose volume is lost: its ids are released, and a new token admits them."""
        if process.node is None:
            raise RuntimeError("a coordinator has no gateways")
        config = self.configs[process.node.coordinator]
        store = Store(config.database_url)
        try:
            directory = Directory(store.gateways, IrrevocableLog(config.irrevocable_path))
            for each in process.node.gateways:
                directory.release(each.id, datetime.now(UTC))
        finally:
            store.close()
        self._write_node(process, self._tokens(process.node))

    def command(self, process: Process, *arguments: str) -> list[str]:
        """A command line on a process's configuration."""
        return [*self.program, *arguments, "--config", str(process.config)]

    async def _meters_listen(self) -> bool:
        await trio.lowlevel.checkpoint()
        return all((self.work / f"{each.name}.json").exists() for each in self.plan.meters)

    def _make_nodes(self) -> None:
        for node in self.plan.nodes:
            url = self.site.metrics(node.name)
            process = Process(node.name, self.work / f"{node.name}.toml", self.work / node.name, url, node)
            self._write_node(process, self._tokens(node))
            self.nodes.append(process)

    def _tokens(self, node: NodePlan) -> dict[str, str]:
        """A token for each area of the node's gateways, with as many uses as it has there."""
        uses: dict[str, int] = {}
        for each in node.gateways:
            uses[each.area] = uses.get(each.area, 0) + 1
        store = Store(self.configs[node.coordinator].database_url)
        try:
            directory = Directory(store.gateways)
            now = datetime.now(UTC)
            return {
                area: directory.create_token(now, label=node.name, uses=count, area=area)
                for area, count in uses.items()
            }
        finally:
            store.close()

    def _write_node(self, process: Process, tokens: dict[str, str]) -> None:
        node = process.node
        if node is None:
            raise RuntimeError("a coordinator is no node")
        urls: dict[str, str] = {}
        for plan in self.plan.meters:
            entries = read_meter_list(self.work / f"{plan.name}.json")
            urls |= {gateway.id: entry.url for gateway, entry in zip(plan.gateways, entries, strict=True)}
        section = node_section(
            node, urls, tokens, data_dir=process.data, addresses=self.site.addresses[node.coordinator],
            root_certificate=self.configs[node.coordinator].pki_path / ROOT_FILE, metrics=process.url,
            host=self.site.host(node.name), scenario=self.plan.scenario,
        )  # fmt: skip
        self._write(process.name, {"node": section})

    def _write(self, name: str, values: dict[str, object]) -> Path:
        path = self.work / f"{name}.toml"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(tomli_w.dumps(values))
        return path

    async def _until(self, what: str, condition: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        with trio.move_on_after(timeout_s):
            while not await condition():
                await trio.sleep(_POLL_S)
            return
        raise DemoError(f"waited {timeout_s:g} s in vain until {what}; the logs are in {self.group.log_dir}")
