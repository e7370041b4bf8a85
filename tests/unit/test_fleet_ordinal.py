"""One configuration for many processes alike: their number, the texts made from it, and what one of them may hold."""

import resource
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from pydantic import ValidationError
from trio.testing import MockClock

from loadtest.config import MetersConfig
from loadtest.meters.meter_list import MeterEntry
from node.config import NodeConfig
from node.descriptors import check_descriptors, files_needed
from node.fleet import run_gateways
from protocol.errors import StromkreisError
from stromkreis.config import ConfigError, load
from stromkreis.simulated_meters import simulated, with_meters


def made(fleet: dict[str, Any], **section: Any) -> NodeConfig:
    return NodeConfig.model_validate({"root_certificate": "root.pem", "fleet": fleet, **section})


def ids(config: NodeConfig) -> list[str]:
    return [gateway.id for gateway in config.all_gateways()]


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        ({"count": 2}, ["ESTK0000000000", "ESTK0000000001"]),
        ({"count": 11, "prefix": "E"}, ["E0000000000000", "E0000000000010"]),
        ({"count": 10, "prefix": "ESTKNORDWEST7"}, ["ESTKNORDWEST70", "ESTKNORDWEST79"]),
        ({"count": 2, "ordinal": 12}, ["ESTK0012000000", "ESTK0012000001"]),
        ({"count": 2, "ordinal": "12"}, ["ESTK0012000000", "ESTK0012000001"]),
        ({"count": 2, "ordinal": 0, "prefix": "E{ordinal}X"}, ["E0X00000000000", "E0X00000000001"]),
    ],
)
def test_ids_are_the_prefix_and_as_many_digits_as_fit(fleet: dict[str, Any], expected: list[str]) -> None:
    found = ids(made(fleet))
    assert [found[0], found[-1]] == expected
    assert len(set(found)) == fleet["count"]


def test_processes_of_other_ordinals_have_other_gateways() -> None:
    found = [name for ordinal in (0, 1, 11, 9_999, 12_345) for name in ids(made({"count": 30, "ordinal": ordinal}))]
    assert len(set(found)) == len(found)


def test_the_ordinal_stands_in_every_text_but_secrets() -> None:
    config = made(
        {
            "count": 1, "ordinal": 3, "meter": "sml+tcp://meters-{ordinal}.meters:{port}?id={id}",
            "first_port": "2{ordinal}000",
        },
        area="Area {ordinal}", data_dir="var/node-{ordinal:02}", metrics="http://127.0.0.1:739{ordinal}",
        token="stk_{ordinal}", link={"public_host": "gateways-{ordinal}.gateways"},
    )  # fmt: skip
    (gateway,) = config.all_gateways()
    assert gateway.meters == ("sml+tcp://meters-3.meters:23000?id=ESTK0003000000",)
    assert gateway.area == "Area 3"
    assert (config.data_dir, config.metrics) == (Path("var/node-03"), "http://127.0.0.1:7393")
    assert config.link.public_host == "gateways-3.gateways"
    assert config.token is not None
    assert config.token.get_secret_value() == "stk_{ordinal}"


def test_the_ordinal_is_what_the_hosts_name_ends_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "stromkreis-gateways-7.gateways.svc")
    assert ids(made({"count": 1, "ordinal": "hostname"})) == ["ESTK0007000000"]
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    with pytest.raises(ValidationError, match="'laptop' does not end in one"):
        made({"count": 1, "ordinal": "hostname"})


def test_the_ordinal_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nroot_certificate = "r"\narea = "A{ordinal}"\nfleet = { count = 1 }\n[meters]\n'
                    'seed = "1{ordinal:03}"\n')  # fmt: skip
    with pytest.raises(ConfigError, match=r"an ordinal, because 'A\{ordinal\}' is made from it"):
        load(NodeConfig, "node", file)
    monkeypatch.setenv("STROMKREIS_NODE__FLEET__ORDINAL", "5")
    monkeypatch.setenv("STROMKREIS_METERS__ORDINAL", "5")
    config = load(NodeConfig, "node", file)
    assert (ids(config), config.area) == (["ESTK0005000000"], "A5")
    assert load(MetersConfig, "meters", file).seed == 1005


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        ({"count": 1, "ordinal": 1, "prefix": "ESTK"}, "all processes would have gateways of the same ids"),
        ({"count": 11, "prefix": "ESTKNORDWEST7"}, "a prefix of at most 12 characters, because 11 gateways"),
        ({"count": 1, "prefix": "ESTKNORDWEST77"}, "String should match pattern"),
        ({"count": 1, "ordinal": "pod"}, "hostname"),
    ],
)
def test_a_fleet_whose_ids_would_not_do_is_refused(fleet: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        made(fleet)


# --- one process ----------------------------------------------------------------------------------------------------


def test_too_few_open_files_are_found_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1_024, 4_096))
    check_descriptors(600, 600)
    with pytest.raises(StromkreisError, match=r"12128 open files and 4096 are allowed: raise .*or have 661 in a"):
        check_descriptors(2_000, 2_000)
    check_descriptors(661, 661)
    with pytest.raises(StromkreisError):
        check_descriptors(661, 661, beside=4)
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1_024, resource.RLIM_INFINITY))
    check_descriptors(100_000, 100_000)
    assert files_needed(0, 0) > 0


async def test_gateways_of_a_process_begin_one_after_the_other(autojump_clock: MockClock) -> None:
    begun_s: list[float] = []
    told: list[int] = []

    class Gateway:
        has_stopped = False

        async def run(self) -> None:
            begun_s.append(trio.current_time() - start_s)

    enrolments: Any = SimpleNamespace(
        enrolled=[SimpleNamespace(place=each) for each in range(1_000)], changed=trio.Event()
    )
    start_s = trio.current_time()
    with trio.move_on_after(60):
        make: Any = lambda _start: lambda _each: Gateway()  # noqa: E731
        await run_gateways(make, lambda gateways: told.append(len(gateways)), enrolments, starts_per_s=100)
    assert told == [1_000]
    assert len(begun_s) == 1_000
    assert 9.0 < max(begun_s) <= 10.0
    assert max(sum(s <= each < s + 1 for each in begun_s) for s in range(11)) <= 110


# --- simulated meters in the same process ---------------------------------------------------------------------------


def test_simulated_meters_take_the_place_of_the_fleets(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[meters]\ncount = 99\nreplay = "x"\nseed = "7{ordinal}"\n')
    node = made({"count": 2, "ordinal": 4}, area="A", token="t")
    meters = simulated(node, file)
    assert (meters.count, meters.first_port, meters.replay_count_max, meters.seed) == (2, 0, 0, 74)
    entries = [
        MeterEntry(f"M{i}", "wmbus", f"wmbus+radio://h:{i}?id=M{i}", "H0", 1, {"encryption": "00"}) for i in (1, 2)
    ]
    config = with_meters(node, entries)
    assert [(each.id, each.meters, each.area) for each in config.all_gateways()] == [
        ("ESTK0004000000", ("wmbus+radio://h:1?id=M1",), "A"), ("ESTK0004000001", ("wmbus+radio://h:2?id=M2",), "A"),
    ]  # fmt: skip
    assert list(config.all_gateways()[0].keys) == ["M1"]


def test_simulated_meters_want_a_fleet() -> None:
    config = NodeConfig.model_validate(
        {"root_certificate": "r", "gateways": [{"id": "ESTK0000000001", "meters": ["sml+tcp://h:1"]}]}
    )
    with pytest.raises(StromkreisError, match="give --gateways"):
        simulated(config, None)
