"""`stromkreis lab run` as a user runs it: files, progress that survives a kill, options, own data, what is missing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest

from loadtest.lab.claims import judge
from loadtest.lab.run import run
from loadtest.lab.schemes import SCHEMES
from loadtest.lab.settings import SMOKE, Settings
from protocol.errors import StromkreisError

ROOT = Path(__file__).parents[2]
QUICK = ("--attack", "linkage", "--attack", "timing", "--attack", "bills", "--attack", "identification")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stromkreis", "lab", *arguments]


def lab(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke form, whole."""
    out = tmp_path_factory.mktemp("lab")
    done = lab("run", "--smoke", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "not run" not in done.stdout, "an experiment is missing; Flower's environment is made by `make peers`"
    return out


def test_every_scheme_and_attack_has_results_with_controls(smoke: Path) -> None:
    document = json.loads((smoke / "lab.json").read_text())
    rows = document["rows"]
    assert {row["scheme"] for row in rows} >= set(SCHEMES)
    attacked = [row for row in rows if row["attack"] not in {"utility", "bills"}]
    for row in attacked:
        assert row["blind_value"] is not None, row
        assert row["without_value"] is not None, row
        assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9, row
    assert len(document["claims"]) == 8
    assert {each["scheme"] for each in document["coalitions"]} == set(SCHEMES)
    assert document["versions"]["antgen"] == "0.4.1"
    assert document["missing"] == []


def test_the_tidy_file_has_every_result(smoke: Path) -> None:
    rows = list(csv.DictReader(StringIO((smoke / "lab.csv").read_text())))
    assert len(rows) == len(json.loads((smoke / "lab.json").read_text())["rows"])
    assert {"scheme", "value", "blind_value", "without_value", "members", "slot_s"} <= rows[0].keys()
    text = (smoke / "lab.md").read_text()
    assert text.count("\n| ring |") > 5


def test_small_sums_and_metrics_are_judged_as_the_documentation_says(smoke: Path) -> None:
    """Claims 5 and 6 on few households: with room for the width of their intervals."""
    claims = {each["number"]: each for each in json.loads((smoke / "lab.json").read_text())["claims"]}
    advantages = [each for each in claims[5]["figures"] if each["what"].startswith("advantage")]
    assert len(advantages) == 2
    assert all(each["estimate"]["low"] > 0.3 for each in advantages)
    ranks = {each["what"]: each["estimate"]["value"] for each in claims[6]["figures"]}
    information = ranks["rank correlation of mutual information with attacks"]
    assert information > 0.6
    assert information > ranks["rank correlation of number of clusters with attacks"] + 0.2


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    arguments = ("run", "--smoke", *QUICK, "--processes", "1")
    process = subprocess.Popen(command(*arguments, "--out", str(out)), cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 120
    while len(stored := sorted(out.glob("cells/*/*-*.json"))) < 2:
        assert time.monotonic() < deadline_s
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    before = {path: path.stat().st_mtime_ns for path in stored}
    assert not (out / "lab.json").exists()
    resumed = lab(*arguments, "--out", str(out))
    assert resumed.returncode == 0, resumed.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a stored experiment was carried out again"
    whole = lab(*arguments, "--out", str(tmp_path / "whole"))
    assert whole.returncode == 0
    assert (out / "lab.csv").read_text() == (tmp_path / "whole" / "lab.csv").read_text()


def children_of(pid: int) -> set[int]:
    """Its processes, by the kernel's table."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(entry.parent.name))
    return found


def running(pids: set[int]) -> set[int]:
    alive = set()
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] != "Z":
                alive.add(pid)
        except OSError:
            continue
    return alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_run_that_was_stopped(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        command("run", "--smoke", "--processes", "2", "--out", str(tmp_path)), cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline_s = time.monotonic() + 120
    while not list(tmp_path.glob("cells/*/*-*.json")):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    computing = children_of(process.pid)
    assert len(computing) >= 2
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    while still := running(computing):
        assert time.monotonic() < deadline_s + 60, f"{len(still)} processes go on"
        time.sleep(0.05)
    assert "Traceback" not in errors
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on" in output


def test_a_cut_off_cell_is_computed_again(tmp_path: Path) -> None:
    settings = Settings(**{**{k: getattr(SMOKE, k) for k in SMOKE.__slots__}, "attacks": ("bills",)})
    first = run(settings, tmp_path)
    (cell,) = tmp_path.glob("cells/*/bills-*.json")
    cell.write_text(cell.read_text()[:40])
    assert run(settings, tmp_path).rows == first.rows


def test_options_choose_schemes_and_attacks(tmp_path: Path) -> None:
    options = ("--households", "40", "--resolution-s", "900", "--seed", "3", "--out", str(tmp_path))
    done = lab("run", "--smoke", "--scheme", "plain", "--attack", "distance", *options)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "lab.json").read_text())
    assert {name: results["settings"][name] for name in ("households", "days", "slot_s", "seed")} == {
        "households": 40, "days": 2, "slot_s": 900, "seed": 3,
    }  # fmt: skip
    rows = results["rows"]
    assert {(row["scheme"], row["attack"]) for row in rows} == {("plain", "distance")}
    assert "not measured in this run" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--scheme", "plian"), 2, "found plian; expected one of plain"),
        (("--attack", "guess"), 2, "found guess; expected one of distance"),
        (("--households", "5"), 1, "expected 24 or more"),
        (("--resolution-s", "7"), 1, "a resolution of 7 s"),
        (("--data", "nowhere.csv"), 2, "no file nowhere.csv"),
        (("--smoke", "--scheme", "paillier", "--attack", "timing"), 1, "no experiment has both"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = lab("run", *arguments, "--out", str(tmp_path), COLUMNS="300", TERM="dumb")
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_own_readings_are_attacked_and_not_shown(tmp_path: Path) -> None:
    made = lab("households", str(tmp_path / "own.csv"), "--count", "60", "--days", "2")
    assert made.returncode == 0, made.stderr
    done = lab(
        "run", "--data", str(tmp_path / "own.csv"), "--attack", "linkage", "--attack", "identification",
        "--ring-size", "10", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "lab.json").read_text())
    assert document["households"] == "recorded, own.csv"
    assert {row["attack"] for row in document["rows"]} == {"linkage", "identification"}
    assert "One household, one day" not in (tmp_path / "out" / "lab.html").read_text()


def test_a_missing_peer_is_named_and_the_rest_runs(tmp_path: Path) -> None:
    done = lab(
        "run", "--smoke", "--attack", "utility", "--scheme", "secagg", "--scheme", "vetter", "--out", str(tmp_path),
        STROMKREIS_PEERS_FLOWER=str(tmp_path / "nowhere"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not run: cryptography secagg: Flower's environment .venv-peers-flower is missing" in done.stdout
    document = json.loads((tmp_path / "lab.json").read_text())
    assert {row["scheme"] for row in document["rows"]} == {"vetter"}
    assert document["missing"][0][0] == "cryptography secagg"


def test_other_settings_do_not_mix(tmp_path: Path) -> None:
    base = {name: getattr(SMOKE, name) for name in SMOKE.__slots__}
    first = run(Settings(**{**base, "attacks": ("bills",)}), tmp_path)
    second = run(Settings(**{**base, "attacks": ("bills",), "seed": 9}), tmp_path)
    assert len(list(tmp_path.glob("cells/*"))) == 2
    assert first.rows != second.rows


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StromkreisError, match="cannot be written"):
        run(SMOKE, tmp_path / "file")


@pytest.fixture(scope="module")
def quarter_hours(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        households=160, days=7, slot_s=900, targets=40, trials=160, iterations=15, real_households=9, real_slots=4,
        group_size=64, attacks=("linkage", "timing", "bills", "identification", "differencing", "utility"),
    )  # fmt: skip


def test_claims_on_pseudonyms_coalitions_sizes_and_rosters_hold(quarter_hours: Settings, tmp_path: Path) -> None:
    """Claims 1, 2, 3, 4, 7 and 8 on 160 households and a week, with room for the width of their intervals."""
    results = run(quarter_hours, tmp_path)
    assert results.missing == ()
    claims = {claim.number: claim for claim in judge(results)}
    figures = {(claim.number, each.what): each for claim in claims.values() for each in claim.figures}
    assert figures[1, "households found by 7 days of values, top-1"].estimate.low > 0.4
    assert figures[1, "households found by a bill at 0.1 kWh, top-1"].estimate.low > 0.3
    assert claims[2].verdict == "holds"
    assert claims[3].verdict == "holds"
    assert figures[4, "different sets of coalitions that read a member"].is_met
    assert figures[4, "dearest over cheapest, CPU"].is_met
    assert figures[7, "advantage in a sum of 100 over 7 days"].estimate.low > 0.3
    by_members = {
        row.parameters["members"]: row.estimate
        for row in results.find(attack="differencing", slot_s=900, kind="power, next round without")
    }
    assert by_members[64].value < by_members[24].value < by_members[5].value
    seconds = results.find(attack="differencing", slot_s=1)
    assert all(row.estimate.low > 0.7 and row.blind.value < 0.6 for row in seconds)
    designed = {
        row.parameters["kind"]: row.estimate.value
        for row in results.find(attack="differencing", members=30)
    }  # fmt: skip
    nobody, alternating = designed["nobody left out"], designed["every second round, returns not limited"]
    allowed = designed["as often as allowed"]
    # The design gives .29, .50 and .30 for these on other households: the order and the closeness are to hold.
    assert alternating > nobody + 0.04
    assert allowed < nobody + 0.05
    shutil.rmtree(tmp_path / "cells")
