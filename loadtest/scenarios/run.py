"""
One load test from start to verdict: processes, set-up, rounds with their faults, the books, the report.

Events are carried out by the clock, from the first round on, whether or not rounds open.  Meters stand still until
their origin, which lies some time before the first round: all gateways that are up by then begin their accounts there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from loadtest.demo.processes import PROGRAM, DemoError, children, cpu_count
from loadtest.scenarios.books import Books, households_of, judge
from loadtest.scenarios.costs import measured
from loadtest.scenarios.faults import Faults
from loadtest.scenarios.http_get import get
from loadtest.scenarios.installation import Installation
from loadtest.scenarios.lines import Site, site
from loadtest.scenarios.page import write_page
from loadtest.scenarios.plan import Calendar, make_plan, setup_s
from loadtest.scenarios.recovery import intervals
from loadtest.scenarios.report import Report, make_report, write_json, write_markdown
from loadtest.scenarios.samples import Samples, gauge
from loadtest.scenarios.scenario import Event, Scenario
from loadtest.scenarios.view import View

_POLL_S = 0.5
_STOP_TIMEOUT_S = 90.0
_SETUP_PATIENCE = 4.0  # times the planned set-up, and three minutes: an epoch may be called early
_END_PATIENCE_ROUNDS = 3.0
_SAMPLES_PER_ROUND = 4


@dataclass(slots=True)
class LoadTest:
    """
    One run; `program` is what the processes run, so that a test can plant a fault in it.

    `setup_s` is the time until the first round, None: by the number of gateways; `seed` is for emulated lines.
    """

    scenario: Scenario
    out: Path
    view: View
    program: Sequence[str] = PROGRAM
    setup_s: float | None = None
    seed: int = 1
    _samples: Samples = field(default_factory=Samples)
    _began_s: float = field(default_factory=time.time)
    _load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    async def run(self) -> Report:
        """
        Play it, write the three reports, and return what they say.

        Raises DemoError that names the process, its log and its last lines, and NetemError.
        """
        with _alone(self.out):
            cores, plan = cpu_count(), make_plan(self.scenario)
            wait_s = setup_s(self.scenario.gateways, cores) if self.setup_s is None else self.setup_s
            period_s = self.scenario.period_in_force_s(cores)
            self._began_s = time.time()
            calendar = Calendar(int(self._began_s + wait_s) + 1, period_s)
            self.view.say(
                f"{self.scenario.name}: {self.scenario.gateways:,} gateways in {len(plan.nodes)} processes, a round"
                f" every {period_s:g} s, the first in {wait_s:.0f} s or later"
            )
            work = self.out / "run"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(mode=0o700)
            with self.view.shown():
                async with site(plan) as where, children(work / "log", stop_timeout_s=_STOP_TIMEOUT_S) as group:
                    installation = Installation(plan, calendar, where, work, group, self.program)
                    report = await self._play(installation, where, wait_s)
            write_json(report, self.out / "report.json")
            write_markdown(report, self.out / "report.md")
            await trio.to_thread.run_sync(write_page, report, self.out / "report.html")
            return report

    async def _play(self, installation: Installation, where: Site, wait_s: float) -> Report:
        await trio.to_thread.run_sync(installation.prepare)
        books = Books(installation.configs, Counter(each.area for each in installation.plan.gateways))
        await installation.start()
        first_s = await self._set_up(installation, books, wait_s)
        setup_took_s = time.time() - self._began_s
        await trio.sleep(max(0.0, first_s - time.time()))
        setup_cpu_s = self._samples.begin(installation)
        faults = Faults(
            installation, books, installation.calendar.period_s, self.view.say,
            lambda: self._samples.look(installation, time.time() - first_s),
        )  # fmt: skip
        await self._samples.scrape(installation, 0.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample, installation, first_s)
            if self.scenario.lines is not None and self.scenario.lines.timeline is not None:
                say = self.view.say
                nursery.start_soon(
                    where.play, self.scenario.lines.timeline, self.seed, lambda step: say(f"lines: {step.what}")
                )
            await self._rounds(installation, books, faults, first_s)
            await self._samples.scrape(installation, time.time() - first_s)
            self._samples.look(installation, time.time() - first_s)
            nursery.cancel_scope.cancel()
        self.view.say("all rounds have ended; stopping")
        await installation.stop_all()
        await trio.to_thread.run_sync(books.read)
        books.close()
        return await trio.to_thread.run_sync(
            self._report, installation, books, faults, first_s, setup_took_s, setup_cpu_s
        )

    async def _set_up(self, installation: Installation, books: Books, wait_s: float) -> float:
        """Wait until every area has its rings; when its first round is due, Unix time in seconds."""
        gateways, areas = self.scenario.gateways, sum(map(len, installation.plan.areas))
        patience_s = 180.0 + _SETUP_PATIENCE * wait_s
        with trio.move_on_after(patience_s):
            while True:
                await trio.to_thread.run_sync(books.read)
                pages = [
                    await get(f"{each.url}/metrics", installation.site.hub) for each in installation.all_coordinators
                ]
                texts = [page[1] for page in pages if page is not None]
                self.view.count(
                    "enrolled", sum(gauge(text, "stromkreis_gateways_enrolled") for text in texts), gateways
                )
                self.view.count("in rings", sum(gauge(text, "stromkreis_ring_members") for text in texts), gateways)
                if books.first_interval is not None:
                    calendar = installation.calendar
                    return calendar.origin_unix_s + books.first_interval * calendar.period_s
                await trio.sleep(_POLL_S)
        raise DemoError(
            f"after {patience_s:.0f} s {areas - len(books.first)} of {areas} areas are not in rings: the"
            f" coordinators' logs in {installation.group.log_dir} say why (more time: --setup-s)"
        )

    async def _rounds(self, installation: Installation, books: Books, faults: Faults, first_s: float) -> None:
        """Carry out the events in their time; returns when all rounds have ended and every event is undone."""
        period_s, rounds = installation.calendar.period_s, self.scenario.rounds
        first = books.first_interval or 0
        async with trio.open_nursery() as nursery:
            for event in self.scenario.all_events():
                nursery.start_soon(self._at, first_s + (event.round + event.at) * period_s, faults, event)
            end_s = first_s + (rounds + _END_PATIENCE_ROUNDS) * period_s
            while time.time() < end_s:
                await trio.sleep(min(_POLL_S, period_s / 4))
                await trio.to_thread.run_sync(books.read)
                by_interval = books.by_interval(rounds)
                rings = len(by_interval.get(first, ()))
                found = intervals(by_interval, first_s, period_s, self._samples.waiting)
                ended = [each for each in found if each.opened + each.void >= rings]
                self.view.rounds(ended, rounds, self.scenario.gateways)
                if len(ended) == rounds:
                    break

    async def _at(self, due_s: float, faults: Faults, event: Event) -> None:
        await trio.sleep(max(0.0, due_s - time.time()))
        await faults.carry_out(event)

    async def _sample(self, installation: Installation, first_s: float) -> None:
        period_s = installation.calendar.period_s
        count = 0
        while True:
            await trio.sleep(max(_POLL_S, period_s / _SAMPLES_PER_ROUND))
            self._samples.look(installation, time.time() - first_s)
            count += 1
            if count % _SAMPLES_PER_ROUND == 0:
                await self._samples.scrape(installation, time.time() - first_s)

    def _report(
        self, installation: Installation, books: Books, faults: Faults, first_s: float, setup_took_s: float,
        setup_cpu_s: float,
    ) -> Report:  # fmt: skip
        plan, calendar = installation.plan, installation.calendar
        stores = [(each.node.coordinator, each.data) for each in installation.nodes if each.node is not None]
        judgement = judge(books, households_of(plan, calendar), stores, faults.lost)
        rounds = self.scenario.rounds
        found = intervals(books.by_interval(rounds), first_s, calendar.period_s, self._samples.waiting, rounds)
        killed = frozenset(name for fault in faults.done for name in fault.processes)
        words = len(books.schema.slots) if books.schema is not None else 1
        costs = measured(
            plan, self._samples, found, calendar.period_s, killed, setup_s=setup_took_s, setup_cpu_s=setup_cpu_s,
            words=words,
        )  # fmt: skip
        return make_report(
            plan, calendar, books, judgement, faults.done, self._samples, costs, start_s=first_s,
            took_s=time.time() - self._began_s, load=(self._load_before, os.getloadavg()[0]),
        )  # fmt: skip


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the output directory: another run would remove this one's files.  Raises DemoError where it is held."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:  # the system lets go of it, however this process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another load test runs in {out}: end it, or give this one another --report") from None
        yield
