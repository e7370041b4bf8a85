"""Rules, alerts and dashboard hold against the programs, and a Prometheus answers them from a running fleet."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml
from prometheus_client import CollectorRegistry

from coordinator.config import WebConfig
from coordinator.metrics import CoordinatorMetrics
from loadtest.network import Network
from loadtest.ports import free_port
from node.lmn.metrics import LMN_METRICS
from node.metrics import NodeMetrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "monitoring"
RUNBOOK = ROOT / "docs" / "howto" / "alerts.md"
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",)}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed (Debian package prometheus)")
        pytest.skip(f"{name} is not installed (Debian package prometheus)")
    return found


def rules() -> Iterator[dict[str, Any]]:
    for file in ("recording.rules.yml", "alerts.rules.yml"):
        for group in yaml.safe_load((FOLDER / file).read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def queries() -> list[str]:
    """The dashboard's."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def exported() -> set[str]:
    """The series' names of both programs."""
    node, coordinator = CollectorRegistry(), CollectorRegistry()
    NodeMetrics(node)
    CoordinatorMetrics(coordinator)
    families = [*node.collect(), *coordinator.collect(), *(each for one in LMN_METRICS for each in one.collect())]
    return {f"{each.name}{part}" for each in families for part in PARTS.get(each.type, ("",))}


RECORDED = {rule["record"] for rule in rules() if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("expression", [*queries(), *(rule["expr"] for rule in rules())])
def test_what_a_query_asks_for_is_exported(expression: str) -> None:
    names = set(re.findall(r"\bstromkreis_\w+", re.sub(r'"[^"]*"', "", expression)))
    recorded = set(re.findall(r"\bstromkreis:[\w:]+", expression))
    assert names - exported() == set()
    assert recorded - RECORDED == set()
    assert names or recorded or "process_" in expression or "up{" in expression


@pytest.mark.parametrize(
    "arguments",
    ["check rules recording.rules.yml alerts.rules.yml", "test rules rules.test.yml", "check config prometheus.yml"],
)
def test_promtool_finds_nothing_wrong(arguments: str) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments.split()], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_part_of_the_runbook_and_no_other_has() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/howto/alerts.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}


async def test_a_prometheus_answers_the_dashboard_from_a_running_fleet(network: Network) -> None:
    # Prometheus knows no brainpool curves, so it cannot call the https address.
    network.web_config = WebConfig(listen=("https://127.0.0.1:0", "http://127.0.0.1:0"))
    program, port = tool("prometheus"), free_port()
    addresses: list[str] = []
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node", addresses.append)
        config = network.directory / "prometheus.yml"
        targets = {"stromkreis-coordinator": network.web[1], "stromkreis-nodes": addresses[0]}
        document = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(FOLDER / "recording.rules.yml"), str(FOLDER / "alerts.rules.yml")],
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": [address.removeprefix("http://")]}]}
                for name, address in targets.items()
            ],
        }
        config.write_text(yaml.safe_dump(document))
        arguments = [
            program, f"--config.file={config}", f"--storage.tsdb.path={network.directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        ]  # fmt: skip
        prometheus = await trio.lowlevel.open_process(arguments)
        try:
            await network.wait_for_rounds(5)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                empty = set(queries())
                with trio.move_on_after(60):
                    while empty := {each for each in empty if not is_sparse(each) and not await answered(client, each)}:
                        await trio.sleep(1)
                assert empty == set()
                assert await answered(client, 'up{job=~"stromkreis.*"} == 1', count=2)
                states = (await client.get("/api/v1/rules?type=alert")).json()["data"]["groups"]
                health = {rule["name"]: rule["health"] for group in states for rule in group["rules"]}
                assert health == dict.fromkeys(ALERTS, "ok")
        finally:
            prometheus.terminate()
            await prometheus.wait()
        nursery.cancel_scope.cancel()


def is_sparse(query: str) -> bool:
    """Whether it shows faults alone, which there may be none of."""
    return query.endswith("> 0")


async def answered(client: httpx.AsyncClient, query: str, count: int = 1) -> bool:
    """Whether it gives so many series; raises where Prometheus refuses it."""
    try:
        answer = await client.get("/api/v1/query", params={"query": query.replace("$__rate_interval", "1m")})
    except httpx.ConnectError:
        return False  # it is starting
    assert answer.status_code in {200, 503}, answer.text
    return answer.status_code == httpx.codes.OK and len(answer.json()["data"]["result"]) >= count
