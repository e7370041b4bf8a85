"""
A month from the first profile set to the verdict, on processes that run as they would in the field.

Written beforehand, in each node's own store: the month up to its last quarter hours, which are real (meters, rings).
The profiles are rolled out while rings run; when the month is over gateways close their billing periods and deliver,
through relays that break connections, while processes are killed.  A run that was broken off before the month's end is
begun anew, and later goes on where it stood: deliveries are each gateway's own affair, and so is that none comes twice.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import tomli_w
import trio
from numpy import int64
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from coordinator.config import CoordinatorConfig
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import Directory
from coordinator.storage.store import Store
from loadtest.demo.costs import Costs
from loadtest.demo.plan import profiles_path
from loadtest.demo.processes import Child, Children, DemoError, children, cpu_count
from loadtest.meters.meter_list import read_meter_list
from loadtest.month.faults import Relays, relays
from loadtest.month.fill import fill
from loadtest.month.ledger import Ledger, best_rate, closing_ledger, latency_ms
from loadtest.month.plan import MonthSettings, Plan
from loadtest.month.report import MonthReport
from loadtest.month.truth import COUNT, Judge, registers_of
from loadtest.ring_profiles import ring_profiles
from node.config import NodeConfig
from protocol.wire import Outcome

_START_S = 120.0
_STALL_S = 900.0  # without a delivery; a gateway that did not get through waits as long
_LOOK_S = 0.5
_LATE_FACTOR = 2.0
_PROCESSES_FOR_A_KILL = 3  # rings bear the loss of the last of them


class TooLateError(DemoError):
    """The first round was due before all gateways were there; `needed_s` of set-up will do."""

    def __init__(self, needed_s: float) -> None:
        super().__init__(f"the gateways were not ready at the first round: run again with --setup-s {needed_s:.0f}")
        self.needed_s = needed_s


class Month:
    """One run of a plan; `run` does it all and returns the report."""

    def __init__(self, plan: Plan, contract_mb: float, console: Console) -> None:
        self._plan = plan
        self._contract_mb = contract_mb
        self._progress = Progress(
            TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._console = console
        self._settings = plan.settings
        self._names = [f"node-{index + 1}" for index in range(plan.settings.processes)]
        self._nodes: dict[str, Child] = {}
        self._figures = plan.figures

    async def run(self) -> MonthReport:
        """
        From where the plan stands to the verdict.

        Raises DemoError that names the process, its log and the log's last lines; TooLateError.
        """
        plan = self._plan
        with self._progress:
            registers = await trio.to_thread.run_sync(self._registers)
            if not plan.is_over:
                await trio.to_thread.run_sync(self._prepare)
                await self._fill(registers)
                plan.begin()
            async with (
                httpx.AsyncClient(base_url=plan.web[1], timeout=30.0) as client,
                relays(plan) as through,
                children(plan.work / "log") as group,
            ):
                coordinator, meters = await self._start(group)
                with closing_ledger(plan) as ledger:
                    if not plan.is_over:
                        await self._last_quarter_hours(group, through, Costs(client))
                        plan.is_over = True
                        plan.save()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(through.cut_for_ever)
                        coordinator, costs = await self._deliver(group, coordinator, ledger, client)
                        nursery.cancel_scope.cancel()
                await group.stop(list(self._nodes.values()))
                await self._command("export", "emp", "export", str(self._values), "--from", "2026-09-01", "--to",
                                    "2026-11-01")  # fmt: skip
                await group.stop([coordinator, meters])
            return await trio.to_thread.run_sync(self._report, registers, through, costs)

    @property
    def _values(self) -> Path:
        return self._settings.directory / "values.csv"

    def _say(self, text: str) -> None:
        self._console.print(f"{datetime.now().astimezone():%H:%M:%S}  {text}", highlight=False)

    def _registers(self) -> dict[str, NDArray[int64]]:
        homes = zip(self._plan.gateways, self._plan.households(), strict=True)
        return {each.id: registers_of(home) for each, home in homes}

    # --- before the month's end -----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        plan = self._plan
        shutil.rmtree(plan.work, ignore_errors=True)
        plan.work.mkdir(parents=True, mode=0o700)
        profiles_path(plan.work).write_text(json.dumps(ring_profiles()), encoding="utf-8")
        config, now = CoordinatorConfig.model_validate(plan.coordinator()), datetime.now(UTC)
        CertificateAuthority.create(config.pki_path, now, hosts=("localhost", "127.0.0.1"))
        areas = [each.area for each in plan.gateways]
        with closing(Store(config.database_url)) as store:
            directory = Directory(store.gateways)
            plan.tokens = {
                area: directory.create_token(now, label="month", uses=areas.count(area), area=area)
                for area in dict.fromkeys(areas)
            }
        plan.save()

    async def _start(self, group: Children) -> tuple[Child, Child]:
        plan = self._plan
        meter_list = plan.work / "meters.json"
        meter_list.unlink(missing_ok=True)
        self._write("meters", {"meters": plan.meters().model_dump(mode="json", exclude_none=True)})
        meters = await group.start("meters", ["meters", "--config", str(plan.work / "meters.toml")])
        with trio.move_on_after(_START_S) as patience:
            while not meter_list.exists():
                await trio.sleep(_LOOK_S / 10)
        if patience.cancelled_caught:
            raise meters.failure(f"did not listen within {_START_S:g} s")
        urls = {each.id: entry.url for each, entry in zip(plan.gateways, read_meter_list(meter_list), strict=True)}
        sections = {name: plan.node(index, urls) for index, name in enumerate(self._names)}
        self._write("coordinator", {"coordinator": plan.coordinator()})
        coordinator = await self._start_coordinator(group)
        for name, section in sections.items():
            self._write(name, {"node": section})
            await self._start_node(group, name)
        return coordinator, meters

    async def _fill(self, registers: dict[str, NDArray[int64]]) -> None:
        settings, began_s = self._settings, time.monotonic()
        task = self._progress.add_task("written", total=settings.gateways)
        count = settings.first_index if settings.live else COUNT + 1
        anywhere = dict.fromkeys(registers, "sml+tcp://127.0.0.1:1")
        for index in range(settings.processes):
            config = NodeConfig.model_validate(self._plan.node(index, anywhere))
            await fill(config, registers, count, partial(self._progress.advance, task))
        self._figures["fill_s"] = time.monotonic() - began_s
        self._say(f"{count} quarter hours of {settings.gateways} gateways written in {self._figures['fill_s']:.0f} s")

    async def _last_quarter_hours(self, group: Children, through: Relays, costs: Costs) -> None:
        settings, schedule = self._settings, self._plan.schedule
        with trio.move_on_after(schedule.meters_origin_unix_s - time.time()) as patience:
            await group.until_ready(list(self._nodes.values()), math.inf)
        if patience.cancelled_caught:
            raise TooLateError(_LATE_FACTOR * settings.demo.setup_in_force_s)
        left_s = schedule.meters_origin_unix_s - time.time()
        self._say(f"{settings.gateways} gateways sit in rings, first round in {left_s + schedule.period_s:.0f} s")
        await trio.sleep(left_s)
        for name, child in self._nodes.items():
            await costs.begin(child, self._metrics(name))
        before = through.relayed_bytes("web")
        async with trio.open_nursery() as nursery:
            if settings.processes >= _PROCESSES_FOR_A_KILL:
                nursery.start_soon(self._kill_in_a_round, group, costs)
            nursery.start_soon(self._show_rounds)
            await self._roll_out()
        self._figures["profile_octets"] = (through.relayed_bytes("web") - before) / settings.gateways
        for child in self._nodes.values():
            await costs.end(child)
        counts = [spent.counts for spent in costs.spent.values()]
        octets = sum(each["sent", 0.0] + each["received", 0.0] for each in counts)
        self._figures["ring_octets"] = octets / (settings.gateways * settings.rounds)

    async def _roll_out(self) -> None:
        (self._settings.directory / "profiles.json").write_text(json.dumps(self._plan.template()))
        await self._command("roll_out", "gwa", "profiles", "roll-out", str(self._settings.directory / "profiles.json"),
                            "--wait", "1800")  # fmt: skip

    async def _kill_in_a_round(self, group: Children, costs: Costs) -> None:
        """A process dies in the middle of the rounds, and comes back."""
        schedule, rounds, victim = self._plan.schedule, self._settings.rounds, self._names[-1]
        await _sleep_until(schedule.origin_unix_s + (rounds // 3 + 0.5) * schedule.period_s)
        await costs.end(self._nodes[victim])
        await group.kill(self._nodes[victim])
        self._plan.kills.append(f"{victim} in a round")
        self._say(f"killed {victim} (SIGKILL) in round {rounds // 3}")
        await _sleep_until(schedule.origin_unix_s + max(rounds // 3 + 2, rounds // 2) * schedule.period_s)
        await self._start_node(group, victim)
        await costs.begin(self._nodes[victim], self._metrics(victim), anew=True)

    async def _show_rounds(self) -> None:
        plan = self._plan
        task = self._progress.add_task("rounds", total=self._settings.rounds)
        while (left_s := plan.end_unix_s - time.time()) > 0:
            self._progress.update(task, completed=self._settings.rounds - int(left_s // plan.schedule.period_s) - 1)
            await trio.sleep(min(left_s, 1.0))
        self._progress.update(task, completed=self._settings.rounds)

    # --- from then on ---------------------------------------------------------------------------------------------

    async def _deliver(
        self, group: Children, coordinator: Child, ledger: Ledger, client: httpx.AsyncClient
    ) -> tuple[Child, Costs]:
        """Until all deliveries are there; the coordinator's costs, and the process that it is now."""
        settings, costs = self._settings, Costs(client)
        wanted = settings.gateways * len(settings.tafs)
        task = self._progress.add_task("delivered", total=wanted)
        victims = [each.id for each in self._plan.gateways if each.process == settings.processes - 1]
        kills = [
            number * len(victims) * len(settings.tafs) // (settings.kills + 1)
            for number in range(settings.kills, 0, -1)
        ]
        await costs.begin(coordinator, f"{self._plan.web[1]}/metrics")
        killed_coordinator = not settings.kills
        count, progress_s = -1, time.monotonic()
        while count < wanted:
            await trio.sleep(_LOOK_S)
            before, count = count, await trio.to_thread.run_sync(ledger.delivered)
            self._progress.update(task, completed=count)
            if count != before:
                progress_s = time.monotonic()
            elif time.monotonic() - progress_s > _STALL_S:
                raise DemoError(
                    f"{count} of {wanted} deliveries, and none for {_STALL_S:g} s; see {self._plan.work}/log"
                )
            if kills and await trio.to_thread.run_sync(ledger.delivered, victims) >= kills[-1]:
                kills.pop()
                await self._kill_node(group, count)
            elif not killed_coordinator and count >= wanted // 2:
                killed_coordinator = True
                await costs.end(coordinator)
                await group.kill(coordinator)
                self._plan.kills.append(f"coordinator at {count} deliveries")
                self._say(f"killed the coordinator (SIGKILL) with {count} of {wanted} deliveries")
                coordinator = await self._start_coordinator(group)
                await costs.begin(coordinator, f"{self._plan.web[1]}/metrics", anew=True)
        await costs.end(coordinator)
        self._say(f"{count} deliveries")
        return coordinator, costs

    async def _kill_node(self, group: Children, count: int) -> None:
        victim = self._names[-1]
        await group.kill(self._nodes[victim])
        self._plan.kills.append(f"{victim} at {count} deliveries")
        self._say(f"killed {victim} (SIGKILL) with {count} deliveries")
        await self._start_node(group, victim)

    def _report(self, registers: dict[str, NDArray[int64]], through: Relays, costs: Costs) -> MonthReport:
        plan, settings = self._plan, self._settings
        judge = Judge(registers, settings.tafs)
        with self._values.open(newline="", encoding="utf-8") as file:
            judge.take_all(csv.DictReader(file))
        with closing_ledger(plan) as ledger:
            verdict, rounds, moments_s, octets = (
                ledger.verdict(plan), ledger.rounds(), ledger.moments_s(), ledger.message_octets()
            )  # fmt: skip
        first_s, period_s = plan.schedule.origin_unix_s, plan.schedule.period_s
        deliver_s = moments_s[-1] - plan.end_unix_s - period_s if moments_s else 0.0
        before = latency_ms(rounds, first_s, plan.end_unix_s)
        delivering = latency_ms(rounds, plan.end_unix_s + period_s, moments_s[-1] if moments_s else 0.0)
        of_day = [each.outcome is Outcome.OPENED for each in rounds if first_s <= each.opened_s < plan.end_unix_s]
        return MonthReport(
            gateways=settings.gateways, tafs=settings.tafs, rounds=settings.rounds, period_s=period_s,
            cpu_count=cpu_count(), fill_s=self._figures["fill_s"], roll_out_s=self._figures["roll_out_s"],
            deliver_s=deliver_s, deliveries=len(moments_s), deliveries_per_s=len(moments_s) / max(deliver_s, 1e-3),
            deliveries_per_s_best=best_rate(moments_s),
            coordinator_cpu_ms_per_delivery=1000 * costs.spent["coordinator"].cpu_s / max(1, len(moments_s)),
            export_s=self._figures["export_s"], values=judge.rows, mistakes=tuple(judge.mistakes),
            kills=tuple(plan.kills), cuts=through.cuts, rings_opened=sum(of_day), rings_void=len(of_day) - sum(of_day),
            rings_are_exact=verdict.exact, rings_difference=str(verdict.differences[0]) if verdict.differences else "",
            round_ms_p50_before=before[0], round_ms_p95_before=before[1], round_ms_p50_delivering=delivering[0],
            round_ms_p95_delivering=delivering[1], ring_octets_per_gateway_round=self._figures["ring_octets"],
            delivery_octets_per_gateway=through.relayed_bytes("inbox") / settings.gateways,
            message_octets_per_gateway=octets / settings.gateways,
            profile_octets_per_gateway=self._figures["profile_octets"],
            contract_mb_per_month=self._contract_mb,
        )  # fmt: skip

    # --- processes ------------------------------------------------------------------------------------------------

    async def _start_coordinator(self, group: Children) -> Child:
        child = await group.start(
            "coordinator", ["coordinator", "--config", str(self._plan.work / "coordinator.toml")],
            ready_url=f"{self._plan.web[1]}/readyz",
        )  # fmt: skip
        await group.until_ready([child], _START_S)
        return child

    async def _start_node(self, group: Children, name: str) -> None:
        arguments = ["node", "--config", str(self._plan.work / f"{name}.toml")]
        url = self._metrics(name).replace("/metrics", "/readyz/placed")
        self._nodes[name] = await group.start(name, arguments, ready_url=url)

    def _metrics(self, name: str) -> str:
        return f"http://127.0.0.1:{self._plan.ports[name]}/metrics"

    def _write(self, name: str, section: dict[str, Any]) -> None:
        path = self._plan.work / f"{name}.toml"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(tomli_w.dumps(section))

    async def _command(self, name: str, group: str, *arguments: str) -> None:
        """`stromkreis GROUP ARGUMENTS` as the operator; its time counts as NAME_s.  Raises DemoError."""
        plan, began_s = self._plan, time.monotonic()
        if name == "export":
            self._values.unlink(missing_ok=True)
        operator = [
            "--coordinator", plan.web[0], "--root", str(plan.work / "coordinator/pki/root.pem"),
            "--token-file", str(plan.work / "coordinator/operator.token"),
        ]  # fmt: skip
        done = await trio.run_process(
            [sys.executable, "-m", "stromkreis", group, *operator, *arguments], capture_stdout=True,
            capture_stderr=True, check=False,
        )  # fmt: skip
        self._figures[f"{name}_s"] = time.monotonic() - began_s
        told = (done.stdout + done.stderr).decode().strip().splitlines() or [""]
        if done.returncode:
            raise DemoError(f"stromkreis {group} {arguments[0]}: status {done.returncode}:\n" + "\n".join(told[-12:]))
        self._say(f"{name.replace('_', ' ')}: {told[-1]} ({self._figures[f'{name}_s']:.0f} s)")


async def _sleep_until(unix_s: float) -> None:
    await trio.sleep(max(0.0, unix_s - time.time()))


@contextmanager
def begun_or_broken_off(settings: MonthSettings) -> Iterator[Plan]:
    """The plan in the directory, or a new one.  Raises StromkreisError for one of other settings."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = Plan.load(settings)
    plan = kept if kept is not None and kept.is_over else Plan.make(settings)
    yield plan
    (settings.directory / "plan.json").unlink(missing_ok=True)
