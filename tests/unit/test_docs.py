"""The documentation keeps to the code: links lead somewhere, pictures and names are those of the code."""

import re
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from coordinator.config import CoordinatorConfig
from coordinator.metrics import CoordinatorMetrics
from loadtest import diagrams
from loadtest.config import MetersConfig
from node.config import NodeConfig
from node.lmn.metrics import LMN_METRICS
from node.metrics import NodeMetrics
from protocol.dcnet.parameters.choice import choose
from protocol.errors import LocalProtocolError

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "howto" / "operations.md"
PROTOCOL = ROOT / "docs" / "explanation" / "protocol.md"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LINKED = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
PACKAGES = ("protocol", "node", "coordinator", "netem", "loadtest", "stromkreis", "tests", "docs")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """What a heading is called in a link, by the rule of GitHub."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return frozenset(map(anchor, headings))


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in (link or image for link, image in LINK.findall(FENCE.sub("", text_of(page)))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / unquote(path)).resolve() if path else page
        if not linked.exists() or (fragment and fragment not in anchors(linked)):
            broken.append(target)
    assert not broken


def test_links_and_anchors_are_seen() -> None:
    """The test above would pass on pages without links."""
    assert "3-the-life-of-an-epoch" in anchors(PROTOCOL)
    assert anchor("What was `chosen` over what, and [why](x.md)?") == "what-was-chosen-over-what-and-why"
    assert LINK.findall("[a](b.md#c) ![d](e.png)") == [("b.md#c", ""), ("", "e.png")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(PACKAGES)})/[\w./]*\w/?)(?:::\w+)?`", text_of(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_tests_that_are_named_exist() -> None:
    tests = "\n".join(text_of(path) for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+?)(?:_?…)?`", text_of(PROTOCOL)))
    assert len(named) > 10
    assert sorted(name for name in named if f"def {name}" not in tests) == []


@pytest.mark.parametrize("machine", diagrams.NAMES)
def test_the_pictures_are_the_tables(machine: str) -> None:
    """`python -m loadtest.diagrams --into docs/explanation/protocol.md` draws them anew."""
    assert diagrams.block(machine) in text_of(PROTOCOL)


def test_drawing_anew_changes_the_marked_places_only() -> None:
    old = "a\n<!-- diagram: member -->\nold\n<!-- end of diagram -->\nb"
    assert diagrams.redraw(old) == f"a\n{diagrams.block('member')}\nb"
    assert "waiting --> shared: offered, OPEN" in diagrams.mermaid("member")
    assert "collecting --> confirming: MASKED_INPUT, deadline" in diagrams.mermaid("head")


def exposed(families: list[Metric]) -> set[str]:
    ends = {"counter": "_total", "info": "_info"}
    return {f"{each.name}{ends.get(each.type, '')}" for each in families}


def test_every_metric_is_explained_and_no_other() -> None:
    registry = CollectorRegistry()
    NodeMetrics(registry)
    families = [*registry.collect(), *(family for each in LMN_METRICS for family in each.collect())]
    CoordinatorMetrics(registry := CollectorRegistry())
    families += registry.collect()
    text = text_of(OPERATIONS)
    assert set(re.findall(r"\bstromkreis_[a-z_]+", text)) == exposed(families)


def test_what_an_alert_looks_at_is_there_before_its_first_event() -> None:
    """`increase` over a series that appears with its first event misses that event."""
    NodeMetrics(registry := CollectorRegistry())
    series = [sample for family in registry.collect() for sample in family.samples]
    CoordinatorMetrics(registry := CollectorRegistry())
    series += [sample for family in registry.collect() for sample in family.samples]
    (rules,) = re.findall(r"^```yaml\n(.*?)^```", text_of(OPERATIONS), re.DOTALL | re.MULTILINE)
    looked_at = re.findall(r"(stromkreis_\w+_total)(?:\{(\w+)=~?\"([^\"]+)\"\})?", rules)
    assert len(looked_at) > 10
    for name, label, values in looked_at:
        for value in values.split("|"):
            if name.startswith("stromkreis_lmn_"):  # by protocol: those of the meters that the node has
                continue
            found = [each for each in series if each.name == name]
            assert any(not label or re.fullmatch(value, each.labels[label]) for each in found), (name, value)


def test_metrics_keep_to_the_conventions_of_prometheus() -> None:
    """As `promtool check metrics` has it: help, base units, `_total` on counters and on nothing else."""
    NodeMetrics(registry := CollectorRegistry())
    families = [*registry.collect(), *(family for each in LMN_METRICS for family in each.collect())]
    CoordinatorMetrics(registry := CollectorRegistry())
    families += registry.collect()
    for family in families:
        assert family.documentation, family.name
        assert re.fullmatch(r"stromkreis_[a-z]+(?:_[a-z]+)*", family.name)
        assert not re.search(r"_(ms|milliseconds|minutes|kb|kilobytes|percent|count|sum|bucket|info)$", family.name)
        assert family.type == "counter" or not family.name.endswith("_total")
        assert {label for sample in family.samples for label in sample.labels} <= {
            "outcome", "reason", "misbehaviour", "phase", "event", "queue", "direction", "protocol", "certificate",
            "le", "area",
        }  # fmt: skip


def test_reasons_that_are_named_exist() -> None:
    """Refusals of the tables at the end of operations.md are literals of the code."""
    text = text_of(OPERATIONS).partition("## Messages")[2]
    first_cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("|")]
    named = {name for cell in first_cells for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", cell)}
    code = "\n".join(
        text_of(path) for package in ("protocol", "node", "coordinator") for path in (ROOT / package).rglob("*.py")
    )
    assert len(named) > 40
    assert sorted(name for name in named if f'"{name}"' not in code) == []


ANY_AREA = 16_384  # gateways; a larger area would be cut into several


def test_areas_work_up_to_the_sizes_of_the_table() -> None:
    text = text_of(OPERATIONS).partition("## Sizing")[2].partition("\n## ")[0]
    rates = [(0.05, 0.05), (0.01, 0.05), (0.01, 0.02)]
    rows = re.findall(r"^\| (\d+)[^|]*\|(.*)\|$", text, re.MULTILINE)
    assert [int(size) for size, _ in rows] == [12, 24, 48, 64, 96]
    for size, cells in ((int(size), cells.split("|")) for size, cells in rows):
        for (corrupt, dropout), cell in zip(rates, cells, strict=True):
            area, *numbers = re.findall(r"any|[\d,]+", cell.replace(", ", " "))
            largest = ANY_AREA // size * size if area == "any" else int(area.replace(",", ""))
            chosen = choose(size, corrupt, dropout, model="unsplittable", population=largest)
            assert [chosen.k, chosen.t, chosen.n_min] == [int(number) for number in numbers]
            if area != "any":
                with pytest.raises(LocalProtocolError):
                    choose(size, corrupt, dropout, model="unsplittable", population=largest + size)


def test_the_configuration_examples_are_valid() -> None:
    example, alike = re.findall(r"^```toml\n(.*?)^```", text_of(OPERATIONS), re.DOTALL | re.MULTILINE)
    document = tomllib.loads(alike)
    area = NodeConfig.model_validate(document["node"]).area
    assert (area, MetersConfig.model_validate(document["meters"]).seed) == ("Street 3", 1003)
    document = tomllib.loads(example)
    coordinator = CoordinatorConfig.model_validate(document.pop("coordinator"))
    node = NodeConfig.model_validate(document.pop("node"))
    meters = MetersConfig.model_validate(document.pop("meters"))
    assert document == {}
    assert len(node.all_gateways()) == meters.count < coordinator.epoch.ring_size


def _names_of_the_code() -> set[str]:
    """What is defined, imported, assigned, passed by name or said in a text of ours; names of files too."""
    found: set[str] = set()
    for package in (*PACKAGES, "mutation", "fuzz", "k8s"):
        for path in (ROOT / package).rglob("*"):
            found.add(path.name)
            if path.suffix in {".py", ".js", ".toml", ".yaml"}:
                found |= set(re.findall(r"[A-Za-z_]\w*", text_of(path)))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_that_are_quoted_are_those_of_the_code(page: Path) -> None:
    """Functions, classes, methods and settings: `a.b` is two of them, the last parts of `a.b.c()` are enough."""
    text = FENCE.sub("", text_of(page))
    quoted = re.findall(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\([^`)]*\))?`", text)
    known = _names_of_the_code()
    words = {part for name in quoted for part in ([name] if name in known else name.split("."))}
    # What others call so: systemd, Kubernetes, a key of a corpus.  Metrics have a test of their own.
    foreign = re.compile(
        r"LimitNOFILE|ContainerCreating|hostPath|nodeSelector|supplementalGroups|minReadySeconds|dlms_cosem_25_1_0|"
        r"stromkreis_\w+|process_\w+"
    )
    assert sorted(word for word in words if word not in known and not foreign.fullmatch(word)) == []
