"""The lab's households: reproducible, the same at every resolution, with a truth that fits the load; own CSV files."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from loadtest.lab.appliances import load_library, read_model
from loadtest.lab.households import LABELS, Households, generate
from loadtest.lab.recordings import read_recordings, write_recordings
from protocol.errors import StromkreisError


@pytest.fixture(scope="module")
def minute() -> Households:
    return generate(12, 2, 60, seed=3)


def test_a_household_depends_on_its_seed_and_number_alone(minute: Households) -> None:
    fewer = generate(5, 1, 60, seed=3)
    assert np.array_equal(fewer.power_w[:, :1200], minute.power_w[:5, :1200])
    assert fewer.present is not None
    assert minute.present is not None
    assert np.array_equal(fewer.present, minute.present[:5, :1440])
    assert not np.array_equal(generate(5, 1, 60, seed=4).power_w, fewer.power_w)


def test_processes_change_nothing() -> None:
    assert np.array_equal(generate(60, 1, 900, 1, processes=2).power_w, generate(60, 1, 900, 1).power_w)


@pytest.mark.parametrize("slot_s", [1, 10, 900])
def test_resolutions_show_the_same_events(minute: Households, slot_s: int) -> None:
    other = generate(3, 2, slot_s, seed=3)
    coarse, fine = (other, minute.only(slice(0, 3))) if slot_s > 60 else (minute.only(slice(0, 3)), other)
    assert np.abs(coarse.power_w - fine.at(coarse.slot_s).power_w).max() <= 1  # both are rounded to whole W


def test_an_appliance_that_runs_draws_its_power(minute: Households) -> None:
    kettle = minute.is_on("KETTLE")
    assert kettle.any()
    assert np.median(minute.power_w[kettle]) > np.median(minute.power_w) + 500
    assert all(minute.is_on(name).any() for name in LABELS)


def test_nobody_cooks_in_an_empty_house() -> None:
    households = generate(40, 3, 60, seed=5)
    assert households.present is not None
    starts = np.diff(households.is_on("KETTLE").astype(int), axis=1) == 1
    assert starts.sum() > 50
    assert households.present[:, 1:][starts].mean() > 0.97
    assert households.present.mean() < 0.95


def test_recorded_models_keep_their_energy_at_any_offset_and_resolution() -> None:
    cycle = load_library().devices["DISHWASHER"][0][0]
    assert cycle.duration_s == 4037
    assert cycle.peak_w == pytest.approx(2083, abs=1)
    whole = float(cycle.energy_ws[-1])
    for slot_s in (1, 60, 900):
        for start_s in (0.0, 17.3, 1234.5):
            first, drawn_w = cycle.mean_power_w(start_s, cycle.duration_s, slot_s)
            assert first == int(start_s // slot_s)
            assert drawn_w.sum() * slot_s == pytest.approx(whole)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<profile/>", "duration"),
        ("<profile duration='9'><load type='ODD'><duration value='1'/></load></profile>", "ODD"),
        ("no xml", "syntax error"),
        ("<profile duration='9'><load type='ON_OFF'><duration value='1'/></load></profile>", "onPower"),
    ],
)
def test_a_model_that_is_none_is_refused_with_its_reason(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "mode0").write_text(text)
    with pytest.raises(StromkreisError, match=told):
        read_model(tmp_path / "mode0")


@pytest.mark.parametrize(
    ("count", "days", "slot_s", "told"),
    [(0, 1, 60, "at least one"), (1, 1, 30, "resolution of 30 s"), (10**6, 7, 1, "at most 8 GiB")],
)
def test_sizes_out_of_range_are_refused_before_memory_is_taken(count: int, days: int, slot_s: int, told: str) -> None:
    with pytest.raises(StromkreisError, match=told):
        generate(count, days, slot_s)


def test_written_households_are_read_back(tmp_path: Path, minute: Households) -> None:
    made = minute.at(900)
    write_recordings(made, tmp_path / "own.csv", datetime(2026, 1, 5, tzinfo=UTC))
    read = read_recordings(tmp_path / "own.csv")
    assert np.array_equal(read.power_w, made.power_w)
    assert np.array_equal(read.on, made.on)
    assert (read.slot_s, read.appliances, read.present) == (900, LABELS, None)
    assert read.names[0] == "meter-00000"


DAY = [f"{1_767_571_200 + 900 * slot},a,{100 + slot}" for slot in range(96)]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["time,meter", "1,a"], "no column W"),
        (["time,meter,W", "noon,a,1"], "line 2: the time 'noon'"),
        (["time,meter,W", *DAY, "1767571200,a,7"], "a second reading of meter a"),
        (["time,meter,W", *DAY[:4], *DAY[6:]], "slots of 2 different lengths"),
        (["time,meter,W", *DAY[:20]], "a day or more"),
        (["time,meter,W", *DAY, "1767571200,b,7"], "meter b has other slots"),
        (["time,meter,W", "1767571200,a,-4"], "column W is not in"),
        (["time,meter,W", "1767571200,a,4711x"], "column W is no number"),
        (["time,meter,W"], "no readings"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, lines: list[str], told: str) -> None:
    (tmp_path / "own.csv").write_text("\n".join(lines))
    with pytest.raises(StromkreisError, match=told) as caught:
        read_recordings(tmp_path / "own.csv")
    assert "4711" not in str(caught.value), "a reading is in the text of the error"


def test_iso_times_with_offset_and_without_are_read(tmp_path: Path) -> None:
    rows = [f"2026-01-05T{slot // 4:02}:{slot % 4 * 15:02}:00+01:00,a,{slot}" for slot in range(96)]
    (tmp_path / "own.csv").write_text("\n".join(["time,meter,W", *rows]))
    assert read_recordings(tmp_path / "own.csv").power_w[0].tolist() == list(range(96))
