"""Simulated households against the tables' own package, against their annual figures and against themselves."""

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from loadtest.config import MeterProtocol, MetersConfig
from loadtest.households import Household, households
from loadtest.profiles import QUARTER_HOURS, SHARES, year_shares
from loadtest.replays import recordings
from protocol.errors import StromkreisError

CORPUS = Path(__file__).parents[2] / "../shared/corpora/sml"


@pytest.fixture(scope="module")
def demandlib_shapes() -> dict[str, np.ndarray]:
    """demandlib's own year 2026; its classes insist on warnings as errors, which pandas 3.1 does not survive."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(warnings, "simplefilter", lambda *_args, **_kwargs: None)
        import pandas as pd
        from demandlib import bdew

        frame = bdew.ElecSlp(2026).slp_frame
        h25 = bdew.H25(pd.date_range("2026-01-01", periods=QUARTER_HOURS, freq="15min"))
        shapes = {"H0": frame["h0_dyn"], "G0": frame["g0"], "H25": h25}
    return {name: (shape / shape.sum()).to_numpy() for name, shape in shapes.items()}


@pytest.mark.parametrize("profile", ["H0", "G0", "H25"])
def test_profiles_are_demandlibs(profile: str, demandlib_shapes: dict[str, np.ndarray]) -> None:
    ours = np.array(year_shares(profile).imported) / SHARES
    theirs = np.concatenate([[0], np.cumsum(demandlib_shapes[profile])])
    assert np.abs(ours - theirs).max() < 1.5 / SHARES


def test_a_pv_home_exports_by_day_and_never_both() -> None:
    shares = year_shares("PV", 140)
    imported, exported = np.diff(shares.imported), np.diff(shares.exported)
    assert not np.any((imported > 1) & (exported > 1))
    by_hour = exported.reshape(365, 24, 4).sum(axis=(0, 2))
    assert by_hour[[0, 1, 2, 22, 23]].sum() == 0
    assert by_hour.argmax() in {11, 12, 13}
    assert shares.exported[-1] - shares.imported[-1] == pytest.approx(0.4 * SHARES, abs=3)
    june, december = exported[150 * 96 : 180 * 96].sum(), exported[335 * 96 :].sum()
    assert june > 5 * december


def test_a_year_of_registers_is_the_annual_consumption() -> None:
    for home in households(MetersConfig(count=12, profiles=("H25", "H0", "G0"), start_quarter_hour=777)):
        start, after_1, after_2 = (home.registers(q).import_tenth_wh for q in (0, QUARTER_HOURS, 2 * QUARTER_HOURS))
        assert after_1 - start == pytest.approx(home.annual_wh * 10, abs=1)
        assert after_2 - start == pytest.approx(home.annual_wh * 20, abs=1)


def test_registers_are_integers_that_never_run_back_and_agree_with_power() -> None:
    for home in households(MetersConfig(count=8, start_quarter_hour=172 * 96)):
        before = home.registers(0)
        for q in range(1, 200):
            now = home.registers(q)
            assert all(type(value) is int for value in now)
            imported = now.import_tenth_wh - before.import_tenth_wh
            exported = now.export_tenth_wh - before.export_tenth_wh
            assert imported >= 0
            assert exported >= 0
            assert now.power_w == (imported - exported) * 4 // 10
            before = now


def test_registers_stand_still_before_the_start() -> None:
    for home in households(MetersConfig(count=4)):
        assert home.registers(-50) == home.registers(0)
        assert home.registers(0).power_w == 0


def test_a_seed_gives_one_neighbourhood_and_another_seed_another() -> None:
    few, many = households(MetersConfig(count=5, seed=7)), households(MetersConfig(count=50, seed=7))
    assert many[:5] == few
    assert len({home.annual_wh for home in many}) == 50
    assert households(MetersConfig(count=5, seed=8)) != few


def test_annual_consumption_and_feed_in_can_be_set() -> None:
    def exported(percent: int) -> int:
        (home,) = households(MetersConfig(count=1, profiles=("PV",), annual_kwh=4_000, feed_in_percent=percent))
        assert home.annual_wh == 4_000_000
        return home.registers(QUARTER_HOURS).export_tenth_wh - home.registers(0).export_tenth_wh

    assert exported(0) == 0
    assert 0 < exported(50) < exported(200)


def test_ten_thousand_households_share_their_profiles() -> None:
    homes = households(MetersConfig(count=10_000))
    assert len({id(home.shares) for home in homes}) == 4
    assert all(isinstance(home, Household) for home in homes)


def test_recordings_take_valid_frames_only_and_stay_on_the_last(tmp_path: Path) -> None:
    def row(number: int, *, crc: bool, name: str = "0100010800ff") -> str:
        entry = {"obj_name": name, "value": {"type": "u32", "v": 1000 + number}, "scaler": 0, "unit": 30}
        power = {"obj_name": "0100100700ff", "value": {"type": "i32", "v": -155}, "scaler": -1, "unit": 27}
        return json.dumps(
            {
                "id": f"meter#{number}",
                "hex": f"{number:02x}",
                "transport_crc_x25_ok": crc,
                "expected": {"libsml": [{"val_list": None}, {"val_list": [entry, power]}]},
            }
        )

    rows = [row(0, crc=False), row(1, crc=True), row(2, crc=True, name="0100020800ff"), row(3, crc=True)]
    (tmp_path / "frames.jsonl").write_text("\n".join(rows))
    (recording,) = recordings(tmp_path, count_max=9)
    assert [recording.frame(q) for q in (-1, 0, 1, 99)] == [b"\x01", b"\x01", b"\x03", b"\x03"]
    assert recording.registers(5) == (10_030, 0, -16)
    assert recordings(tmp_path, count_max=0) == []


def test_a_folder_without_recordings_says_so(tmp_path: Path) -> None:
    with pytest.raises(StromkreisError, match="expected recorded SML frames"):
        recordings(tmp_path, count_max=1)
    (tmp_path / "frames.jsonl").write_text("[]\n")
    with pytest.raises(StromkreisError, match="no table of recorded SML frames"):
        recordings(tmp_path, count_max=1)


@pytest.mark.beside_repository
def test_real_recordings_have_registers_that_never_run_back() -> None:
    found = recordings(CORPUS, count_max=1_000)
    assert len(found) >= 10
    for recording in found:
        imports = [shown.import_tenth_wh for shown in recording.shown]
        assert imports == sorted(imports)
        assert all(frame.startswith(b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01") for frame in recording.frames)


def test_every_profile_meets_every_protocol_and_is_counted_alike() -> None:
    told: Any = "sml, dlms,mbus,wmbus,iec62056-21,p1"
    config = MetersConfig(count=24, protocols=told)
    pairs = Counter((config.profiles[i % 4], config.protocol_of(i)) for i in range(24))
    assert len(pairs) == 24
    listed: Any = ["p1"]
    assert MetersConfig(protocols=listed).protocol_of(7) == "p1"
    with pytest.raises(ValidationError, match="protocols"):
        MetersConfig.model_validate({"protocols": "sml,zigbee"})


@pytest.mark.parametrize(("decimals", "protocol", "step_tenth_wh"), [(1, "sml", 1), (-3, "sml", 10_000), (1, "p1", 10)])
def test_registers_have_the_resolution_of_the_display(
    decimals: int, protocol: MeterProtocol, step_tenth_wh: int
) -> None:
    plain: MeterProtocol = "sml"
    fine, coarse = (
        households(MetersConfig(count=1, register_decimals=each, protocols=(spoken,)))[0]
        for each, spoken in ((1, plain), (decimals, protocol))
    )
    for q in range(0, 400, 37):
        exact, shown = fine.registers(q).import_tenth_wh, coarse.registers(q).import_tenth_wh
        assert shown % step_tenth_wh == 0
        assert 0 <= exact - shown < step_tenth_wh
