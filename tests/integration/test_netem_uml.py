"""
The back end `tc` on a kernel that has sch_netem: Debian's user-mode-linux, booted here (2 to 5 s).

One boot serves all tests of the file.  Time in the guest stands still while the host gives it no processor, so upper
bounds on delays are wide.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ["sch_netem", "sch_ingress", "veth", "ifb", "act_mirred", "cls_u32"]
LATE_S = 0.15


def _load_boot() -> ModuleType:
    spec = importlib.util.spec_from_file_location("uml", Path(__file__).with_name("uml.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    uml = _load_boot()
    if os.environ.get("CI") != "true" and (shutil.which(uml.PROGRAM) is None or not uml.MODULES.is_dir()):
        pytest.skip("user-mode-linux is not installed (Debian's package user-mode-linux)")
    shared = tmp_path_factory.getbasetemp()
    output = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "uml"
    output.mkdir(exist_ok=True)
    with (output / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one boot for all of pytest-xdist's workers
        if not (output / "status").exists():
            script = str(Path(__file__).with_name("netem_in_uml.py"))
            uml.boot([sys.executable, script, uml.OUTPUT], output, directory=ROOT, modules=MODULES, timeout_s=150)
    assert (output / "status").read_text(encoding="ascii") == "0\n", (output / "stderr").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads((output / "found.json").read_text(encoding="utf-8"))
    return result


def test_a_profile_does_what_it_says(found: dict[str, Any]) -> None:
    assert found["check_error"] == ""
    (measured,) = json.loads(found["check"])
    assert measured["backend"] == "tc"
    assert 0.088 <= measured["round_trip_s"]["measured"] <= 0.09 + LATE_S
    assert measured["loss"]["asked"] == pytest.approx(0.1)
    assert measured["loss"]["is_right"]
    # Nothing makes a line faster than its rate; a guest that stands still makes it slower.
    assert 400_000 <= measured["rate_up_bit_s"]["measured"] <= 1_100_000
    assert 800_000 <= measured["rate_down_bit_s"]["measured"] <= 2_200_000


def test_an_interface_is_shaped_in_both_directions(found: dict[str, Any]) -> None:
    assert found["before"] == {"root": found["before"]["root"], "ifbs": {}}
    assert found["told"] == "up on tc: here d0"
    assert "netem 5e7e: root" in found["shaped"]["root"]
    assert "delay 60ms" in found["shaped"]["root"]
    assert "loss 10%" in found["shaped"]["root"]
    assert "rate 1Mbit" in found["shaped"]["root"]
    (down,) = found["shaped"]["ifbs"].values()
    assert "delay 30ms" in down
    assert "rate 2Mbit" in down


def test_a_second_run_on_an_interface_is_refused_with_a_way_out(found: dict[str, Any]) -> None:
    assert found["second_status"] == 2
    assert found["beside_second"] == found["shaped"]
    assert "d0: has a qdisc already (netem 5e7e:, ingress ffff:): `stromkreis netem clean`" in found["second"]


def test_a_signal_removes_qdiscs_and_device(found: dict[str, Any]) -> None:
    assert found["stopped_status"] == 0
    assert "Traceback" not in found["stopped_error"]
    assert found["stopped"] == found["before"]


def test_a_profile_without_a_rate_takes_the_old_rate_away(found: dict[str, Any]) -> None:
    for qdisc in (found["unshaped"]["root"], *found["unshaped"]["ifbs"].values()):
        assert "netem 5e7e: root" in qdisc
        assert not {"rate", "loss", "delay"} & set(qdisc.split())


def test_a_cut_loses_everything(found: dict[str, Any]) -> None:
    assert "loss 100%" in found["cut"]["root"]
    assert all("loss 100%" in qdisc for qdisc in found["cut"]["ifbs"].values())


def test_what_a_killed_run_left_is_cleaned_up(found: dict[str, Any]) -> None:
    assert found["killed"] == found["cut"]
    assert "removed qdisc of d0" in found["cleaned"]
    assert found["after_clean"] == found["before"]
