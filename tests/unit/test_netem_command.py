"""`stromkreis netem`: tables for people, JSON for machines, and errors in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from netem.emulation import Backend
from netem.probes import Arrivals, Loss, RoundTrips
from netem.profiles import load_profiles
from netem.selfcheck import Measurement, compare
from stromkreis.__main__ import build
from stromkreis.netem_tables import measurement_table, rate_text
from stromkreis.user_messages import exit_code, user_messages

ROOT = Path(__file__).parents[2]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build(["netem"]), ["netem", *arguments], env={"COLUMNS": "160", "TERM": "dumb"})


def told(result: Result) -> str:
    assert result.exception is not None
    lines = user_messages(result.exception)
    assert lines is not None
    return "".join(lines)


def test_the_list_names_every_profile_and_scenario() -> None:
    result = invoke("list")
    assert result.exit_code == 0
    for name in ("lte", "cdma450", "gprs", "bpl", "6 Mbit/s", "15 kbit/s", "partition", "coordinator-outage"):
        assert name in result.output


def test_the_list_is_machine_readable() -> None:
    found = json.loads(invoke("list", "--json").output)
    assert found["profiles"]["lte"]["up"]["rate_bit_s"] == 6_000_000
    assert found["scenarios"]["partition"]["events"][0]["action"] == "partition"


def test_a_profile_is_shown_with_its_sources() -> None:
    output = invoke("show", "gprs").output
    assert "RFC 3481" in output
    assert "assumed:" in output
    assert json.loads(invoke("show", "gprs", "--json").output)["name"] == "gprs"


def test_a_scenario_is_shown_as_a_timeline() -> None:
    output = invoke("show", "partition").output
    assert "30.0 s  partition first-area (2 endpoints)  [2 apart]" in output
    assert "120.0 s  end: all healed" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("show", "ltee"), "found ltee; expected one of none, ethernet"),
        (("check", "ltee"), "found profile ltee; expected one of none, ethernet"),
        (("run", "partion"), "found scenario partion; expected one of calm"),
        (("run", "--backend", "proxy"), "the network has no relays: give --relay LISTEN=TARGET"),
        (("run", "--relay", "7300"), "--relay: found 7300; expected LISTEN=TARGET"),
        (("run", "--relay", "a=b"), "--relay: relays.0.listen: found 'a'; expected HOST:PORT"),
        (("run", "--backend", "tc"), "no endpoint has an interface: give --interface"),
        (("run", "--network", "none.toml"), "none.toml: cannot be read: No such file"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(arguments: tuple[str, ...], expected: str) -> None:
    result = invoke(*arguments)
    assert expected in told(result)
    assert result.exception is not None
    assert exit_code(result.exception) == 2


def test_wrong_use_ends_the_program_with_status_2_and_no_traceback() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stromkreis", "netem", "show", "ltee"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("stromkreis: found ltee; expected one of")
    assert "Traceback" not in done.stderr


def measurement(*, round_trip_s: float, lost: int, rate_share: float) -> Measurement:
    profile = load_profiles()["lte"]
    trips = RoundTrips([round_trip_s] * 400, Loss(lost, 400), Loss(0, 400 - lost))

    def arrivals(rate: int | None) -> Arrivals:
        assert rate is not None
        return Arrivals([(number * 0.01, int(rate * rate_share * 0.01 / 8)) for number in range(200)])

    return compare(Backend.PROXY, profile, trips, arrivals(profile.up.rate_bit_s), arrivals(profile.down.rate_bit_s))


@pytest.mark.parametrize(
    ("found", "is_right"),
    [
        ({"round_trip_s": 0.071, "lost": 1, "rate_share": 0.98}, True),
        ({"round_trip_s": 0.085, "lost": 1, "rate_share": 0.98}, False),
        ({"round_trip_s": 0.055, "lost": 1, "rate_share": 0.98}, False),
        ({"round_trip_s": 0.071, "lost": 40, "rate_share": 0.98}, False),
        ({"round_trip_s": 0.071, "lost": 1, "rate_share": 0.6}, False),
        ({"round_trip_s": 0.071, "lost": 1, "rate_share": 1.4}, False),
    ],
)
def test_a_figure_that_is_off_is_noticed(found: dict[str, float], is_right: bool) -> None:
    each = measurement(round_trip_s=found["round_trip_s"], lost=int(found["lost"]), rate_share=found["rate_share"])
    assert each.is_right == is_right
    assert measurement_table(Backend.PROXY, [each]).row_count == 1
    assert json.loads(json.dumps(each.as_json()))["is_right"] == is_right


def test_nothing_measured_is_off_and_becomes_null() -> None:
    profile = load_profiles()["lte"]
    each = compare(Backend.PROXY, profile, RoundTrips([], Loss(9, 9), Loss(0, 0)), Arrivals(), None)
    assert not each.is_right
    found = each.as_json()
    assert isinstance(found["round_trip_s"], dict)
    assert found["round_trip_s"]["measured"] is None


def test_the_interval_of_a_loss_covers_what_explains_it() -> None:
    low, high = Loss(10, 1_000).interval()
    assert low < 0.01 < high
    assert Loss(0, 400).interval()[0] == 0
    assert Loss(0, 400).interval()[1] > 0.03
    assert Loss(0, 0).interval() == (0.0, 1.0)


@pytest.mark.parametrize(("rate", "text"), [(6_000_000, "6 Mbit/s"), (15_000, "15 kbit/s"), (None, "unlimited")])
def test_rates_are_written_as_people_do(rate: float | None, text: str) -> None:
    assert rate_text(rate) == text
