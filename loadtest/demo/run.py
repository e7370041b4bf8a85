"""
The demo from start to verdict: prepare, start, watch, kill, restart, stop, judge.

Everything runs as it would in the field, in processes of its own with a configuration file each; the demo itself only
starts them, pulls a plug and looks.  The one thing it arranges is time: meters stand still until their origin, which
lies before the first round and after every gateway's first reading, so that ground truth knows where accounts begin.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import httpx
import tomli_w
import trio
from rich.console import Console

from coordinator.config import CoordinatorConfig
from coordinator.gwa.ca import ROOT_FILE, CertificateAuthority
from coordinator.gwa.enrolment import Directory
from coordinator.storage.store import Store
from loadtest.account import accounts_of
from loadtest.config import MetersConfig
from loadtest.demo.costs import Costs
from loadtest.demo.page import write_page
from loadtest.demo.plan import (
    ROUNDS_MAX,
    DemoSettings,
    PlannedGateway,
    Schedule,
    coordinator_section,
    meters_config,
    node_section,
    planned_gateways,
    profiles_path,
)
from loadtest.demo.processes import Child, Children, DemoError, children
from loadtest.demo.report import Outage, Report, judge, make_report, print_report, read_rounds, write_report
from loadtest.demo.view import DemoState, View
from loadtest.demo.watch import Watch
from loadtest.meters.meter_list import read_meter_list
from loadtest.meters.run import simulated_meters
from loadtest.ports import free_port
from loadtest.ring_profiles import ring_profiles

_START_TIMEOUT_S = 60.0
_STALL_S_MIN = 20.0
_LOOK_S = 1.0


class SetupTooShortError(DemoError):
    """The first round was due before the gateways were ready; `needed_s` of set-up will do."""

    def __init__(self, needed_s: int) -> None:
        self.needed_s = needed_s
        super().__init__(f"this machine needed more time to set up than planned: run again with --setup-s {needed_s}")


@dataclass(slots=True)
class _Node:
    """One process with gateways, and what starts it."""

    name: str
    config: Path
    address: str
    gateways: list[PlannedGateway]
    child: Child | None = None


class Demo:
    """One run; `run` does it all."""

    def __init__(self, settings: DemoSettings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._work = settings.out / "run"
        self._schedule = Schedule.after(settings.setup_in_force_s, settings.period_in_force_s)
        self._gateways = planned_gateways(settings)
        self._meters: MetersConfig = meters_config(settings, self._schedule, self._work)
        self._claim, web_port = _claim(settings.web_port)
        self._web = (f"https://127.0.0.1:{free_port()}", f"http://127.0.0.1:{web_port}")
        section = coordinator_section(settings, self._schedule, self._work, self._web)
        self._coordinator_config = CoordinatorConfig.model_validate(section)
        self._coordinator_toml = tomli_w.dumps({"coordinator": section})
        self.report: Report | None = None
        self._tokens: dict[str, str] = {}
        self._nodes: list[_Node] = []
        self._outage: Outage | None = None

    @property
    def dashboard(self) -> str:
        """Where it will be."""
        return self._web[1]

    def close(self) -> None:
        """Let go of the dashboard's port."""
        self._claim.close()

    async def run(self) -> None:
        """
        Run it; `report` holds the result, also while it stays up.

        Raises DemoError that names the process, its log and its last lines.
        """
        with self.alone():
            await self._run()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the output directory: another demo would remove this one's files.  Raises DemoError where it is held."""
        self._settings.out.mkdir(parents=True, exist_ok=True)
        with (self._settings.out / ".lock").open("w") as lock:  # the system lets go of it, however this process ends
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DemoError(
                    f"another demo runs in {self._settings.out}: end it, or give this one another directory by --out"
                ) from None
            yield

    async def _run(self) -> None:
        settings = self._settings
        await trio.to_thread.run_sync(self._prepare)
        async with (
            httpx.AsyncClient(base_url=self._web[1], timeout=10.0) as client,
            children(self._work / "log") as group,
        ):
            state = DemoState(settings.gateways, settings.rounds, self._web[1], Watch(client))
            view, costs = View(state, self._console), Costs(client)
            with view.shown():
                coordinator, meters = await self._start(group, view, state, costs)
                await self._rounds(group, view, state, coordinator, costs)
                for child in (coordinator, *self._living()):
                    await costs.end(child)
                if not settings.keep:
                    state.phase = "stopping"
                    view.say("all rounds have ended; stopping")
                    for part in (self._living(), [coordinator], [meters]):
                        await group.stop(part)
            self.report = await trio.to_thread.run_sync(self._judge, costs)
            path = settings.out / "report.json"
            write_report(self.report, path)
            await trio.to_thread.run_sync(write_page, self.report, path.with_suffix(".html"))
            print_report(self.report, path.with_suffix(".html"), self._console)
            if settings.keep:
                self._console.print(f"It stays up: {self._web[1]}  (Ctrl-C ends it)", highlight=False)
                await trio.sleep_forever()

    def _prepare(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True, mode=0o700)
        config, now = self._coordinator_config, datetime.now(UTC)
        CertificateAuthority.create(config.pki_path, now, hosts=("localhost", "127.0.0.1"))
        store = Store(config.database_url)
        try:
            self._tokens = {
                area: Directory(store.gateways).create_token(
                    now, label="demo", uses=sum(each.area == area for each in self._gateways), area=area
                )
                for area in self._settings.areas
                if any(each.area == area for each in self._gateways)
            }
        finally:
            store.close()
        profiles_path(self._work).write_text(json.dumps(ring_profiles()), encoding="utf-8")
        self._write("coordinator", self._coordinator_toml)
        self._write("meters", tomli_w.dumps({"meters": self._meters.model_dump(mode="json", exclude_none=True)}))

    def _write(self, name: str, text: str) -> Path:
        path = self._work / f"{name}.toml"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        return path

    # --- start -------------------------------------------------------------------------------------------------

    async def _start(self, group: Children, view: View, state: DemoState, costs: Costs) -> tuple[Child, Child]:
        meters = await group.start("meters", ["meters", "--config", str(self._work / "meters.toml")])
        coordinator = await group.start(
            "coordinator",
            ["coordinator", "--config", str(self._work / "coordinator.toml"), "--log-format", "json"],
            ready_url=f"{self._web[1]}/readyz",
        )
        await self._meters_listen(meters)
        await group.until_ready([coordinator], _START_TIMEOUT_S)
        recorded = len(self._gateways) - self._meters.count
        view.say(f"{len(self._gateways)} meters listen, {recorded} of them recorded; the coordinator is up")
        view.say(f"dashboard: {self._web[1]}")
        state.phase = "enrolling"
        self._make_nodes()
        for node in self._nodes:
            await self._start_node(group, node)
        await group.until_ready(
            self._living(),
            max(_START_TIMEOUT_S, self._schedule.meters_origin_unix_s - time.time()),
        )
        left_s = self._schedule.meters_origin_unix_s - time.time()
        view.say(f"{len(self._gateways)} gateways in {len(self._nodes)} processes are enrolled and sit in rings")
        if left_s < 0:
            needed_s = self._settings.setup_in_force_s - left_s
            raise SetupTooShortError(round(needed_s * 1.3))
        state.phase = f"first round in {left_s + self._schedule.period_s:.0f} s"
        view.refresh()
        await trio.sleep(left_s)
        await costs.begin(coordinator, f"{self._web[1]}/metrics")
        for node in self._nodes:
            if node.child is not None:
                await costs.begin(node.child, f"{node.address}/metrics")
        state.phase = "running"
        return coordinator, meters

    async def _meters_listen(self, meters: Child) -> None:
        meter_list = self._meters.meter_list
        with trio.move_on_after(_START_TIMEOUT_S):
            while meter_list is None or not meter_list.exists():
                await trio.sleep(0.05)
            return
        raise meters.failure(f"did not listen within {_START_TIMEOUT_S:g} s")

    def _make_nodes(self) -> None:
        meter_list = read_meter_list(self._work / "meters.json")
        urls = {gateway.id: entry.url for gateway, entry in zip(self._gateways, meter_list, strict=True)}
        for index in range(self._settings.processes):
            mine = [gateway for gateway in self._gateways if gateway.process == index]
            name, address = f"node-{index + 1}", f"http://127.0.0.1:{free_port()}"
            section = node_section(
                name, mine, urls, self._tokens, work=self._work, coordinator=self._web[0],
                root_certificate=self._coordinator_config.pki_path / ROOT_FILE, metrics=address,
                rounds=self._settings.rounds,
            )  # fmt: skip
            path = self._write(name, tomli_w.dumps({"node": section}))
            self._nodes.append(_Node(name, path, address, mine))

    async def _start_node(self, group: Children, node: _Node) -> None:
        arguments = ["node", "--config", str(node.config), "--log-format", "json"]
        node.child = await group.start(node.name, arguments, ready_url=f"{node.address}/readyz/placed")

    def _living(self) -> list[Child]:
        return [node.child for node in self._nodes if node.child is not None]

    def _now_s(self) -> float:
        """Since the first round."""
        return round(time.time() - self._schedule.origin_unix_s, 3)

    # --- rounds ------------------------------------------------------------------------------------------------

    async def _rounds(self, group: Children, view: View, state: DemoState, coordinator: Child, costs: Costs) -> None:
        rounds, period_s = self._settings.rounds, self._schedule.period_s
        kill_after, restart_after = rounds // 3, max(rounds // 3 + 2, rounds // 2)
        stall_s = max(_STALL_S_MIN, 6 * period_s)
        victim = self._nodes[-1]
        known, progress_s, looked_s = 0, trio.current_time(), -math.inf
        while state.watch.ended < rounds:
            await trio.sleep(min(0.4, period_s / 3))
            await state.watch.poll()
            view.refresh()
            if trio.current_time() - looked_s >= _LOOK_S:
                looked_s = trio.current_time()
                costs.look(self._now_s())
            if len(state.watch.rounds) > known:
                known, progress_s = len(state.watch.rounds), trio.current_time()
            elif trio.current_time() - progress_s > stall_s:
                if not known:
                    raise coordinator.failure(f"held no round within {stall_s:g} s of the first that was due")
                view.say(f"no round has ended for {stall_s:g} s; judging what there is")
                return
            ended = state.watch.ended
            if self._outage is None and ended >= kill_after and victim.child is not None:
                await costs.end(victim.child)
                self._outage = Outage(victim.name, tuple(each.id for each in victim.gateways), self._now_s())
                await group.kill(victim.child)
                view.say(f"killed {victim.name} (SIGKILL): {len(victim.gateways)} gateways are gone")
            if self._outage is not None and self._outage.back_at_s is None and ended >= restart_after:
                await self._start_node(group, victim)
                if victim.child is not None:
                    await costs.begin(victim.child, f"{victim.address}/metrics", anew=True)
                self._outage = replace(self._outage, back_at_s=self._now_s())
                view.say(f"started {victim.name} again: what its meters counted meanwhile must reappear")

    # --- the end -----------------------------------------------------------------------------------------------

    def _judge(self, costs: Costs) -> Report:
        simulated = simulated_meters(self._meters)
        meters = {gateway.id: (meter,) for gateway, meter in zip(self._gateways, simulated, strict=True)}
        recorded = read_rounds(self._coordinator_config.database_url, self._settings.rounds)
        stores = [accounts_of(self._work / node.name) for node in self._nodes]
        firsts = [(gateway, account.first) for each in stores for gateway, account in each.items()]
        verdict = judge(recorded, self._coordinator_config.epoch, meters, firsts)
        return make_report(
            self._settings, recorded, verdict, costs, origin_unix_s=self._schedule.origin_unix_s, outage=self._outage
        )


def _claim(port: int) -> tuple[IO[str], int]:
    """
    The port for the dashboard, if it is free and no other demo has claimed it, else another; and the claim.

    A look at the port alone is not enough: seconds go by until the coordinator listens.
    """
    path = Path(tempfile.gettempdir()) / f"stromkreis-demo-{os.getuid()}-{port}.lock"
    lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")  # /tmp is everybody's
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return lock, free_port()
    return lock, free_port(port)


def wrong_settings(settings: DemoSettings) -> Sequence[str]:
    """What is wrong with the settings, in sentences; empty where nothing is."""
    found = []
    if settings.gateways < 24:
        found.append(f"--gateways {settings.gateways}: expected 24 or more, two rings that can lose some")
    if not 6 <= settings.rounds <= ROUNDS_MAX:
        found.append(
            f"--rounds {settings.rounds}: expected 6 to {ROUNDS_MAX}: some before, during and after the kill, and one"
            " epoch of a week at most"
        )
    if settings.processes < 3:
        found.append(f"--processes {settings.processes}: expected 3 or more, one is killed")
    if settings.period_in_force_s <= 0:
        found.append("--period-s: expected more than 0")
    return found
