"""The demo's parts for real, each alone: children that end with it, watching over REST, judging a database."""

import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import tomli_w
import trio
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from coordinator.config import CoordinatorConfig
from coordinator.epoch_config import EpochConfig
from coordinator.metrics import CoordinatorMetrics
from coordinator.status import Status
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from coordinator.web.app import make_app
from loadtest.config import MetersConfig
from loadtest.demo.costs import Costs, Sample, Spent, counts_in, phases
from loadtest.demo.page import figures, write_page
from loadtest.demo.plan import (
    DemoSettings,
    Schedule,
    coordinator_section,
    meters_config,
    node_section,
    planned_gateways,
)  # fmt: skip
from loadtest.demo.processes import DemoError, children, usage
from loadtest.demo.report import Outage, Report, judge, make_report, print_report, read_rounds, write_report
from loadtest.demo.run import Demo, wrong_settings
from loadtest.demo.view import DemoState, View, render
from loadtest.demo.watch import Watch
from loadtest.households import households
from loadtest.ports import free_port
from node.config import NodeConfig
from node.metrics import NodeMetrics
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, WORD_MODULUS
from protocol.wire import Outcome
from stromkreis.config import load

ROOT = Path(__file__).parents[2]
METERING_START_S = 1_750_000_500
EPOCH = EpochConfig(rounds=6, period_s=1, origin_unix_s=5_000, metering_origin_unix_s=METERING_START_S)


# --- plan -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [24, 48, 1000])
def test_each_ring_loses_little_when_the_last_process_dies(count: int) -> None:
    settings = DemoSettings(gateways=count)
    gateways = planned_gateways(settings)
    assert len({each.id for each in gateways}) == count
    assert {each.process for each in gateways} == {0, 1, 2, 3}
    for area in settings.areas:
        mine = [each for each in gateways if each.area == area]
        assert abs(len(mine) - count / len(settings.areas)) < 1
        assert 0 < sum(each.process == 3 for each in mine) / len(mine) < 0.2


def test_the_configuration_files_are_valid(tmp_path: Path) -> None:
    settings = DemoSettings(gateways=24)
    schedule = Schedule.after(10, 1)
    coordinator = coordinator_section(settings, schedule, tmp_path, ["https://127.0.0.1:1", "http://127.0.0.1:2"])
    gateways = planned_gateways(settings)
    node = node_section(
        "node-1", gateways, {each.id: "sml+tcp://127.0.0.1:3?push=1" for each in gateways},
        dict.fromkeys(DemoSettings().areas, "t"),
        work=tmp_path, coordinator="https://127.0.0.1:1", root_certificate=tmp_path / "root.pem", metrics="http://h:4",
        rounds=24,
    )  # fmt: skip
    path = tmp_path / "all.toml"
    meters = meters_config(settings, schedule, tmp_path)
    sections = {"coordinator": coordinator, "node": node, "meters": meters.model_dump(mode="json", exclude_none=True)}
    path.write_text(tomli_w.dumps(sections), encoding="utf-8")
    assert load(MetersConfig, "meters", path) == meters
    made = load(CoordinatorConfig, "coordinator", path)
    assert made.areas == DemoSettings().areas
    assert made.epoch.rounds == 96
    assert made.epoch.origin_unix_s is not None
    assert meters.origin_unix_s is not None
    assert made.epoch.origin_unix_s - meters.origin_unix_s == 1
    read = load(NodeConfig, "node", path).all_gateways()
    assert [(each.id, each.area) for each in read] == [(each.id, each.area) for each in gateways]


def test_a_taken_port_gives_way() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_port(taken.getsockname()[1]) != taken.getsockname()[1]


def test_settings_that_cannot_work_are_told() -> None:
    assert wrong_settings(DemoSettings()) == []
    assert len(wrong_settings(DemoSettings(gateways=3, rounds_wanted=1, processes=1, period_s=-1))) == 4


# --- children ---------------------------------------------------------------------------------------------------------


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


async def _write_list(tmp_path: Path, name: str) -> None:
    with trio.fail_after(120):
        while not (tmp_path / name).exists():
            await trio.sleep(0.02)


def _meters(tmp_path: Path, name: str) -> list[str]:
    return ["meters", "--count", "1", "--first-port", "0", "--meter-list", str(tmp_path / name)]


async def test_children_end_with_the_context_whatever_ends_it(tmp_path: Path, on_path: None) -> None:
    with pytest.RaisesGroup(KeyError):
        async with children(tmp_path) as group:
            one = await group.start("one", _meters(tmp_path, "one.json"))
            two = await group.start("two", _meters(tmp_path, "two.json"))
            await _write_list(tmp_path, "one.json")
            await _write_list(tmp_path, "two.json")
            assert usage(one.pid).cpu_s > 0
            await group.kill(two)
            raise KeyError
    assert one.process.returncode == 0, "stopped gracefully"
    assert two.process.returncode == -signal.SIGKILL
    assert _gone(one.pid)


async def test_a_child_that_ends_by_itself_is_told_with_its_log(tmp_path: Path, on_path: None) -> None:
    with pytest.RaisesGroup(DemoError) as caught:
        async with children(tmp_path) as group:
            other = await group.start("other", _meters(tmp_path, "other.json"))
            await group.start("broken", ["meters", "--count", "0"])
            await trio.sleep_forever()
    text = str(caught.value.exceptions[0])
    assert "broken ended by itself with exit code 2" in text
    assert str(tmp_path / "broken.log") in text
    assert "expected a count over 0" in text
    assert _gone(other.pid)


async def test_a_child_that_is_not_ready_in_time_is_told(tmp_path: Path, on_path: None) -> None:
    with pytest.RaisesGroup(DemoError) as caught:
        async with children(tmp_path) as group:
            url = f"http://127.0.0.1:{free_port()}/readyz"
            child = await group.start("slow", _meters(tmp_path, "slow.json"), ready_url=url)
            await group.until_ready([child], 0.3)
    assert "slow was not ready within 0.3 s" in str(caught.value.exceptions[0])


def test_a_killed_demo_takes_its_children_along(tmp_path: Path) -> None:
    code = (
        "import sys, trio; from pathlib import Path; from loadtest.demo.processes import children\n"
        "async def main():\n"
        f"    async with children(Path({str(tmp_path)!r})) as group:\n"
        f"        child = await group.start('orphan', {_meters(tmp_path, 'meters.json')!r})\n"
        f"        while not Path({str(tmp_path / 'meters.json')!r}).exists(): await trio.sleep(0.02)\n"
        "        print(child.pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        pid = int(demo.stdout.readline())
        demo.kill()
    deadline_s = time.monotonic() + 10
    while not _gone(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert _gone(pid)


# --- watching and judging ---------------------------------------------------------------------------------------------

HOMES = households(MetersConfig(count=6, start_quarter_hour=16_556))
METERS = {f"ESTK00{i:08d}": (home,) for i, home in enumerate(HOMES)}
KILLED = "ESTK0000000002"
LATE = "ESTK0000000004"


class _Quiet:
    def status(self) -> Status:
        return Status(0, (), 6, 6)

    async def changed(self, revision: int) -> None:
        del revision
        await trio.sleep_forever()

    def described(self) -> str | None:
        return None

    def not_ready(self) -> str | None:
        return None


def _played(url: str, begun_q: int = 0) -> Store:
    """
    Six rounds of two areas: round 3 of the first is void, and one gateway misses rounds 2 and 3.

    The account of gateway LATE began in quarter hour `begun_q`.
    """
    store = Store(url)
    names = sorted(METERS)
    for number, area in enumerate(DemoSettings().areas):
        members = tuple(names[number * 3 : number * 3 + 3])
        epoch = EpochRecord(number, area, DEFAULT_SCHEMA, 6, METERING_START_S, 900)
        store.epochs.add(epoch, [RingLayout(number, 0, members)])
        accounts: dict[str, list[EnergyAccount]] = {}
        for round_ in range(6):
            q = round_ + 1
            if number == 0 and round_ == 3:
                ended = Ended(number, 0, 3, Outcome.VOID, 2, 0, 7, 0, (), False, "too_few", 5_003.0, 5_003.8)
            else:
                present = [p for p in range(3) if not (members[p] == KILLED and round_ in {2, 3})]
                total = [len(present), 0, 0, 0]
                for name in (members[p] for p in present):
                    (home,) = METERS[name]
                    zero, now = home.registers(begun_q if name == LATE else 0), home.registers(q)
                    first = (zero.import_tenth_wh, zero.export_tenth_wh)
                    mine = accounts.setdefault(name, [EnergyAccount(each, each) for each in first])
                    for index, register in enumerate((now.import_tenth_wh, now.export_tenth_wh)):
                        moved, mine[index] = contribute(mine[index], register, q, length_s=1)
                        total[1 + index] += moved
                    total[3] += now.power_w
                words = tuple(word % WORD_MODULUS for word in total)
                roster = sum(1 << p for p in present)
                opened_s = 5_000.0 + round_
                ended = Ended(
                    number, 0, round_, Outcome.OPENED, 0, 0, 7, roster, words, True, "", opened_s, opened_s + 0.02
                )
            assert store.rounds.record(ended)
    return store


async def test_watching_over_rest_and_both_views(tmp_path: Path) -> None:
    store = _played(f"sqlite:///{tmp_path}/c.sqlite")
    app = make_app(store, _Quiet(), CoordinatorMetrics(CollectorRegistry()))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
        watch = Watch(client)
        assert await watch.poll()
        assert await watch.poll()
    store.close()
    assert len(watch.rounds) == 12
    assert watch.ended == 6
    assert watch.rounds[0, 2, 0].missing == (KILLED,)
    assert [each.reason for each in watch.rounds.values() if not each.opened] == ["too_few"]
    report = _report(f"sqlite:///{tmp_path}/c.sqlite")
    registers = [(home.registers(0), home.registers(6)) for home in HOMES]
    counted = sum(end.import_tenth_wh - zero.import_tenth_wh for zero, end in registers)
    counted += sum(end.export_tenth_wh - zero.export_tenth_wh for zero, end in registers)
    total_wh = sum(total.import_wh + total.export_wh for total in watch.totals)
    assert float(total_wh) + report.carried_wh == pytest.approx(counted / 10)
    assert report.carrying == 3
    state = DemoState(6, 6, "http://127.0.0.1:7380", watch, "running")
    live = Console(width=110, force_terminal=True, record=True, file=io.StringIO())
    live.print(render(state))
    text = live.export_text()
    assert "http://127.0.0.1:7380" in text
    assert "round 6/6" in text
    assert DemoSettings().areas[1] in text
    plain = Console(width=110, record=True, file=io.StringIO())
    view = View(state, plain)
    with view.shown():
        view.say("something happened")
        view.refresh()
        view.refresh()
    lines = plain.export_text().splitlines()
    assert sum("round " in line for line in lines) == 6, "each round once"
    assert any("something happened" in line for line in lines)


async def test_a_coordinator_that_does_not_answer_is_asked_again_later() -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}") as client:
        assert not await Watch(client).poll()


def _report(url: str) -> Report:
    costs = Costs(httpx.AsyncClient())
    mine = Counter({("sent", 0.0): 3600, ("received", 0.0): 1800, ("sum", 0.05): 6, ("sum", math.inf): 12})
    costs.spent = {"node-4": Spent(0.036, 600, mine, Counter({("sent", 0.0): 180})), "coordinator": Spent(0.072, 900)}
    costs.samples = [Sample(0.0, "node-4", 0.0, 600), Sample(1.0, "node-4", 0.01, 600), Sample(4.0, "node-4", 2.0, 5)]
    recorded = read_rounds(url, 6)
    outage = Outage("node-4", (KILLED,), 1.9, 3.5)
    settings = DemoSettings(gateways=6, rounds_wanted=6)
    verdict = judge(recorded, EPOCH, METERS)
    return make_report(settings, recorded, verdict, costs, origin_unix_s=5_000, outage=outage)


def test_a_run_is_judged_from_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    _played(url).close()
    report = _report(url)
    assert report.exact
    assert report.conservation_error_wh == 0
    assert (report.rounds, report.rings, report.opened, report.void) == (6, 2, 11, 1)
    assert (report.killed, report.recovered, report.gateways) == (1, 1, 6)
    assert (report.round_ms_p50, report.round_ms_p95) == (20.0, 20.0)
    assert (report.cpu_ms_per_gateway_round, report.memory_kb_per_gateway) == (1.0, 100.0)
    assert report.failures == []
    assert (report.sent_bytes_per_gateway_round, report.received_bytes_per_gateway_round) == (100.0, 50.0)
    assert (report.setup_sent_bytes_per_gateway, report.coordinator_cpu_ms_per_gateway_round) == (30.0, 2.0)
    path = tmp_path / "out" / "report.json"
    write_report(report, path)
    written = json.loads(path.read_text())
    assert written["exact"] is True
    assert written["settings"]["seed"] == 1
    assert written["outage"] == {"process": "node-4", "gateways": [KILLED], "killed_at_s": 1.9, "back_at_s": 3.5}
    assert len(written["ring_rounds"]) == 12
    assert [each["reason"] for each in written["ring_rounds"] if not each["opened"]] == ["too_few"]
    console = Console(width=120, record=True, file=io.StringIO())
    print_report(report, path, console)
    assert "yes, every slot of every total" in console.export_text()


@pytest.mark.parametrize(("said_q", "is_exact"), [(1, True), (0, False), (5, False)])
def test_an_account_that_begins_late_is_exact_only_from_its_beginning(
    tmp_path: Path, said_q: int, is_exact: bool
) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    _played(url, begun_q=1).close()
    shown = METERS[LATE][0].registers(said_q)
    firsts = [(LATE, (0, shown.import_tenth_wh, shown.export_tenth_wh, 0))]
    verdict = judge(read_rounds(url, 6), EPOCH, METERS, firsts)
    assert verdict.exact is is_exact
    assert (verdict.conservation_error_wh == 0) is is_exact


def test_an_epoch_that_was_cut_short_is_judged_with_the_one_after_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    store = _played(url)
    (area, _) = DemoSettings().areas
    epoch = EpochRecord(2, area, DEFAULT_SCHEMA, 6, METERING_START_S + 6 * 900, 900)
    store.epochs.add(epoch, [RingLayout(2, 0, tuple(sorted(METERS)[:3]))])
    for round_ in range(3):
        assert store.rounds.record(Ended(2, 0, round_, Outcome.VOID, 0, 0, 7, 0, (), False, "late", 5_006.0, 5_006.5))
    store.close()
    recorded = read_rounds(url, 8)
    assert (recorded.expected, len(recorded.ended)) == (16, 14)
    assert judge(recorded, EPOCH, METERS).exact


def test_a_wrong_total_fails_the_demo(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    store = _played(url)
    with store.database.write() as connection:
        from coordinator.storage.packing import pack_words
        from coordinator.storage.tables import ring_rounds

        wrong = ring_rounds.update().where(ring_rounds.c.epoch == 1, ring_rounds.c.round == 4)
        connection.execute(wrong.values(total=pack_words((3, 1, 2, 3))))
    store.close()
    report = _report(url)
    assert not report.exact
    assert len(report.failures) == 2
    assert "epoch 1, ring 0, round 4" in report.failures[0]


def test_too_few_opened_rounds_fail_the_demo(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    store = _played(url)
    with store.database.write() as connection:
        from coordinator.storage.tables import ring_rounds

        connection.execute(ring_rounds.delete().where(ring_rounds.c.epoch == 1, ring_rounds.c.round == 5))
    store.close()
    report = _report(url)
    assert report.exact
    assert report.failures == ["only 83% of the ring rounds opened, expected 90%"]


# --- costs and the report to look at --------------------------------------------------------------------------------


def test_costs_are_read_from_the_metrics_of_both_sides() -> None:
    node = NodeMetrics(registry := CollectorRegistry())
    node.sent(7)
    node.received(5)
    for seconds in (0.003, 0.04, 0.04, 60.0):
        node.phase("collect", seconds)
    counts = counts_in(generate_latest(registry).decode())
    assert (counts["sent", 0.0], counts["received", 0.0]) == (7, 5)
    collect = phases(counts)["collect"]
    assert list(phases(counts)) == ["collect"]
    assert (collect.rounds[0], collect.rounds[-1], collect.bounds_ms[-1]) == (0, 4, None)
    assert 20 < collect.p50_ms <= 50
    assert collect.p95_ms == collect.bounds_ms[-2], "more is not known beyond the last bound"
    metrics = CoordinatorMetrics(registry := CollectorRegistry())
    metrics.sent.inc(9)
    assert counts_in(generate_latest(registry).decode())["sent", 0.0] == 9


async def test_a_process_is_counted_over_both_its_lives(tmp_path: Path, on_path: None) -> None:
    told = iter([100, 130, 40])
    empty = 'stromkreis_node_round_phase_duration_seconds_bucket{le="0.1",phase="collect"} 0\n'

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=f'stromkreis_node_link_bytes_total{{direction="sent"}} {next(told)}\n' + empty)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client, children(tmp_path) as group:
        costs = Costs(client)
        first = await group.start("node-1", _meters(tmp_path, "one.json"))
        await _write_list(tmp_path, "one.json")
        await costs.begin(first, "http://n/metrics")
        costs.look(1.5)
        await costs.end(first)
        await group.kill(first)
        second = await group.start("node-1", _meters(tmp_path, "two.json"))
        await costs.begin(second, "http://n/metrics", anew=True)
        await _write_list(tmp_path, "two.json")
        await costs.end(second)
    spent = costs.spent["node-1"]
    assert (("collect", 0.1), 0) in spent.counts.items(), "an empty bucket says where the others begin"
    assert (spent.setup["sent", 0.0], spent.counts["sent", 0.0]) == (100, 30 + 40)
    assert spent.cpu_s > 0
    assert [(each.at_s, each.process) for each in costs.samples] == [(1.5, "node-1")]


async def test_a_process_that_is_not_up_again_by_the_end_has_sent_nothing(tmp_path: Path, on_path: None) -> None:
    async with httpx.AsyncClient() as client, children(tmp_path) as group:
        costs = Costs(client)
        child = await group.start("node-1", _meters(tmp_path, "one.json"))
        await costs.begin(child, f"http://127.0.0.1:{free_port()}/metrics", anew=True)
        await costs.end(child)
    assert not costs.spent["node-1"].counts


async def test_a_process_without_metrics_is_told(tmp_path: Path, on_path: None) -> None:
    with pytest.RaisesGroup(DemoError) as caught:
        async with httpx.AsyncClient() as client, children(tmp_path) as group:
            child = await group.start("node-1", _meters(tmp_path, "one.json"))
            await Costs(client).begin(child, f"http://127.0.0.1:{free_port()}/metrics")
    assert "node-1 tells no metrics" in str(caught.value.exceptions[0])


def test_the_page_needs_nothing_else_and_repeats_no_markup(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.sqlite"
    _played(url).close()
    report = _report(url)
    evil = tuple(replace(each, area="</script><b>", opened=False, reason="<i>") for each in report.ring_rounds)
    write_page(
        replace(report, ring_rounds=(*report.ring_rounds, *evil), difference="<u>", exact=False), tmp_path / "r.html"
    )
    page = (tmp_path / "r.html").read_text()
    assert "Plotly.newPlot(" in page
    assert "</script><b>" not in page
    assert "<u>" not in page.rpartition("</script>")[0].partition("<body>")[2]
    outside = page.partition("<script>")[0] + page.partition("<body>")[2]
    assert "http" not in re.sub(r"<script>.*?</script>", "", outside, flags=re.DOTALL)


def test_lines_of_a_process_have_a_gap_while_it_is_dead(tmp_path: Path) -> None:
    """Also where its new life has spent more than the old one had."""
    url = f"sqlite:///{tmp_path}/c.sqlite"
    _played(url).close()
    drawn = {title: figure for title, _, figure in figures(_report(url))}
    assert [trace["y"] for trace in drawn["CPU"]["data"]] == [[1.0, None]]
    assert [trace["y"] for trace in drawn["Memory"]["data"]] == [[0.6, 0.6, None, 0.0]]


def test_a_second_demo_leaves_the_first_ones_files_alone(tmp_path: Path) -> None:
    first = Demo(DemoSettings(out=tmp_path), Console(file=io.StringIO()))
    second = Demo(DemoSettings(out=tmp_path), Console(file=io.StringIO()))
    with first.alone():
        (tmp_path / "run").mkdir()
        with pytest.raises(DemoError, match=f"another demo runs in {tmp_path}: .*--out"), second.alone():
            pass
        assert (tmp_path / "run").exists()
    with second.alone():
        pass
    for each in (first, second):
        each.close()


def test_two_demos_that_start_at_once_take_two_ports(tmp_path: Path) -> None:
    """Both find the port free, seconds before their coordinators listen."""
    port = free_port()
    first = Demo(DemoSettings(out=tmp_path / "1", web_port=port), Console(file=io.StringIO()))
    second = Demo(DemoSettings(out=tmp_path / "2", web_port=port), Console(file=io.StringIO()))
    assert first.dashboard == f"http://127.0.0.1:{port}"
    assert second.dashboard != first.dashboard
    first.close()
    third = Demo(DemoSettings(out=tmp_path / "3", web_port=port), Console(file=io.StringIO()))
    assert third.dashboard == f"http://127.0.0.1:{port}"
    for each in (second, third):
        each.close()
