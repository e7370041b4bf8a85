"""What the back ends tell the kernel, and how a tool's failure reads; all as text, without privileges."""

import json
from pathlib import Path

import pytest

from netem import records
from netem.errors import MissingKernelFeatureError, MissingPrivilegeError, MissingToolError, ToolFailedError
from netem.namespaces import address_of, rate_qdisc, ruleset
from netem.profiles import Direction, load_profiles
from netem.records import Record, Resources, ShapedInterface, stale
from netem.scenario import LinkState
from netem.tc import configured_qdiscs, is_reachable, netem_qdisc
from netem.tools import explain, find_tool

LTE = load_profiles()["lte"]


def test_a_rate_has_a_bucket_for_a_tick_and_a_queue_for_its_time() -> None:
    assert rate_qdisc(Direction(), 1) == "pfifo limit 1000"
    assert rate_qdisc(Direction(rate_bit_s=15_000, queue_s=5), 1) == "tbf rate 15000bit burst 1600 limit 10975"
    assert rate_qdisc(Direction(rate_bit_s=10_000_000, queue_s=0.1), 10) == (
        "tbf rate 100000000bit burst 75000 limit 1325000"
    )


def test_netem_gets_delay_jitter_loss_rate_and_a_queue_limit() -> None:
    # 6 Mbit/s for 35 ms and three deviations in packets of 500 bytes, and for half a second in those of 1,514.
    assert netem_qdisc(LTE.up, 1, is_up=True) == (
        "netem limit 345 delay 35000us 8000us distribution normal loss random 0.100000% rate 6000000bit"
    )
    assert "rate 18000000bit" in netem_qdisc(LTE.up, 3, is_up=True)


def test_netem_is_told_everything_because_it_keeps_what_it_is_not_told() -> None:
    assert netem_qdisc(LTE.up, 1, is_up=False) == "netem limit 1 loss 100% rate 0bit"
    assert netem_qdisc(Direction(), 1, is_up=True) == "netem limit 10000 delay 0us loss random 0.000000% rate 0bit"


def test_netem_has_no_jitter_without_a_rate_because_it_would_reorder() -> None:
    assert "distribution" not in netem_qdisc(Direction(delay_s=0.1, jitter_s=0.02), 1, is_up=True)


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ("qdisc noqueue 0: root refcnt 2 \n", []),
        ("qdisc mq 0: root \nqdisc fq_codel 0: parent :1 limit 10240p\n", []),
        ("qdisc htb 1: root refcnt 2 r2q 10\n", ["htb 1:"]),
        (
            "qdisc netem 5e7e: root refcnt 2\nqdisc ingress ffff: parent ffff:fff1 ---\n",
            ["netem 5e7e:", "ingress ffff:"],
        ),
        ("qdisc clsact ffff: parent ffff:fff1 \n", ["clsact ffff:"]),
    ],
)
def test_qdiscs_that_somebody_has_set_are_noticed(shown: str, found: list[str]) -> None:
    assert configured_qdiscs(shown) == found


def test_a_link_apart_is_cut_where_the_other_end_cannot_be_seen() -> None:
    assert is_reachable(LinkState(LTE))
    assert not is_reachable(LinkState(LTE, is_up=False))
    assert not is_reachable(LinkState(LTE, group=2))


def test_a_ruleset_cuts_separates_and_loses() -> None:
    lossless = load_profiles()["ethernet"]
    state = {
        "a": LinkState(LTE, group=1),
        "b": LinkState(lossless, group=1),
        "c": LinkState(lossless, is_up=False),
        "d": LinkState(lossless),
    }
    text = ruleset(state, {name: f"v{index}" for index, name in enumerate(state)})
    assert text.startswith("table inet stromkreis_netem\ndelete table inet stromkreis_netem\n")
    assert 'iifname { "v2" } drop' in text
    assert 'oifname { "v2" } drop' in text
    assert 'iifname { "v0", "v1" } oifname != { "v0", "v1" } drop' in text
    assert 'iifname != { "v0", "v1" } oifname { "v0", "v1" } drop' in text
    assert "chain loss_1000 { numgen random mod 1000000 < 1000 counter drop; }" in text
    assert 'iifname vmap { "v0" : jump loss_1000 }' in text


def test_a_ruleset_without_faults_has_no_rule() -> None:
    assert "drop" not in ruleset({"a": LinkState(load_profiles()["ethernet"])}, {"a": "v0"})


def test_addresses_are_distinct_and_valid() -> None:
    addresses = [address_of(index) for index in range(10_000)]
    assert len(set(addresses)) == 10_000
    assert all(1 <= int(part) <= 250 for address in addresses for part in address.split(".")[2:])


def test_a_missing_tool_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netem.tools.shutil.which", lambda *_, **__: None)
    with pytest.raises(MissingToolError, match=r"`tc` is not installed: install the package iproute2"):
        find_tool("tc")


@pytest.mark.parametrize(
    ("arguments", "stdin", "stderr", "kind", "told"),
    [
        (
            ("tc", "-batch", "-"), "qdisc replace dev eth0 root netem limit 9\n",
            "Error: Specified qdisc kind is unknown.\nCommand failed -:1\n",
            MissingKernelFeatureError, "this kernel has no sch_netem",
        ),
        (
            ("ip", "-batch", "-"), "link add nm type ifb\n", "Error: Unknown device type.\n",
            MissingKernelFeatureError, "this kernel has no ifb",
        ),
        (
            ("iptables-restore",), "-A FORWARD -j NFQUEUE --queue-num 0\n",
            "iptables-restore: line 2 failed: No such file or directory",
            MissingKernelFeatureError, "nfnetlink_queue and xt_NFQUEUE",
        ),
        (
            ("ip", "netns", "add", "x"), "", "mkdir /run/netns failed: Permission denied\n",
            MissingPrivilegeError, "use sudo, or `--backend proxy`",
        ),
        (("ip", "link"), "", "Cannot find device eth9\n", ToolFailedError, "`ip link` failed: Cannot find device eth9"),
        (("ip", "link"), "", "", ToolFailedError, "no reason given"),
    ],
)  # fmt: skip
def test_a_tools_failure_says_what_is_missing_and_what_to_do(
    arguments: tuple[str, ...], stdin: str, stderr: str, kind: type[Exception], told: str
) -> None:
    error = explain(arguments, stdin, stderr)
    assert type(error) is kind
    assert told in str(error)


def test_a_record_is_stale_only_when_its_run_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RUN_NETNS", tmp_path / "netns")
    with Record(tmp_path) as record:
        name = record.add_namespace("hub")
        record.add_shaped(ShapedInterface("eth0", "netem0"))
        assert list(stale(tmp_path)) == []
    ((path, made),) = stale(tmp_path)
    assert made == Resources([name], [ShapedInterface("eth0", "netem0")])
    assert json.loads(path.read_text(encoding="utf-8"))["namespaces"] == [name]


def test_a_record_whose_things_are_removed_goes_too(tmp_path: Path) -> None:
    with Record(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_was_cut_off_by_a_crash_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RUN_NETNS", tmp_path / "netns")
    (tmp_path / "1-ab.json").write_text('{"namespaces": ["strom', encoding="utf-8")
    (tmp_path / "netns").mkdir()
    for name in ("stromkreis-netem-1-ab-hub", "stromkreis-netem-2-cd-hub", "somebody-elses"):
        (tmp_path / "netns" / name).touch()
    found = [made for _, made in stale(tmp_path)]
    assert found == [Resources(["stromkreis-netem-1-ab-hub"]), Resources(["stromkreis-netem-2-cd-hub"])]


def test_a_living_run_is_spared_even_while_its_record_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RUN_NETNS", tmp_path / "netns")
    (tmp_path / "netns").mkdir()
    with Record(tmp_path) as record:
        (tmp_path / "netns" / record.add_namespace("hub")).touch()
        (tmp_path / f"{record.run_id}.json").write_text("{", encoding="utf-8")
        assert list(stale(tmp_path)) == []
        record.made.namespaces.clear()


def test_a_record_is_locked_while_it_is_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RUN_NETNS", tmp_path / "netns")
    (tmp_path / "1-ab.json").write_text('{"namespaces": [], "shaped": []}', encoding="utf-8")
    first = stale(tmp_path)
    assert next(first)[1] == Resources()
    assert list(stale(tmp_path)) == []
    assert list(first) == []


def test_a_folder_that_may_not_be_written_is_a_missing_privilege(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MissingPrivilegeError, match="use sudo, or `--backend proxy`"), Record(tmp_path / "none"):
        pass
