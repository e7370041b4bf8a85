"""Who gets totals by the coordinator's configuration: what calls then say, and what is refused at the start."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from coordinator.config import CoordinatorConfig
from protocol.dcnet.setup.registers import check_registers
from protocol.dcnet.setup.schema import RECIPIENTS_MAX

IMPORT, EXPORT, POWER = "1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:16.7.0*255"


def config(*recipients: dict[str, Any], **changed: Any) -> CoordinatorConfig:
    values = {"areas": ["Nord", "Ost"], "recipients": list(recipients)} | changed
    return CoordinatorConfig.model_validate(values)


def told(made: CoordinatorConfig, area: str) -> dict[str | None, tuple[str, ...]]:
    return {slot.obis: slot.recipients for slot in made.schema_of(area).slots}


def test_without_a_word_the_grid_operator_gets_all_totals() -> None:
    mine = ("grid-operator",)
    assert told(CoordinatorConfig(), "default") == {None: (), IMPORT: mine, EXPORT: mine, POWER: mine}


def test_recipients_of_areas_and_registers_get_those_alone() -> None:
    made = config(
        {"participant": "ost", "areas": ["Ost"]},
        {"participant": "nord", "areas": ["Nord"]},
        {"participant": "Lieferant", "registers": [IMPORT]},
    )  # fmt: skip
    assert told(made, "Nord") == {None: (), IMPORT: ("Lieferant", "nord"), EXPORT: ("nord",), POWER: ("nord",)}
    assert told(made, "Ost") == {None: (), IMPORT: ("Lieferant", "ost"), EXPORT: ("ost",), POWER: ("ost",)}


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        ([], "at least 1 item"),
        ([{"participant": "nord", "areas": ["Nord"]}], f"recipients of register {IMPORT} of area Ost"),
        ([{"participant": "nord", "registers": [IMPORT, EXPORT]}], f"recipients of register {POWER} of area Nord"),
        ([{"participant": "nord", "registers": ["1-0:1.9.0*255"]}], "not of 1-0:1.9.0*255"),
        ([{"participant": "nord"}, {"participant": "nord"}], "different participants"),
        ([{"participant": each, "certificates": ["0" * 64]} for each in ("a", "b")], "different certificates"),
        ([{"participant": "a b"}], "should match pattern"),
        ([{"participant": "a", "certificates": ["0" * 63]}], "should match pattern"),
        ([{"participant": f"p{index}"} for index in range(RECIPIENTS_MAX + 1)], f"1 to {RECIPIENTS_MAX} recipients"),
    ],
    ids=["none", "area", "register", "no such register", "twice", "certificate", "name", "fingerprint", "too many"],
)
def test_what_does_not_fit_is_refused_with_what_is_expected(recipients: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(expected)):
        config(*recipients)


def test_a_part_that_calls_no_epochs_needs_no_areas() -> None:
    """The market participant's process has the same file as the ring service, whose areas it may not know."""
    assert config({"participant": "nord", "areas": ["Nord"]}, role="emp", areas=["default"]).recipients


@pytest.mark.parametrize(
    ("medium", "register"), [("gas", "7-0:3.0.0*255"), ("heat", "6-0:1.0.0*255"), ("water", "8-0:1.0.0*255")]
)
def test_other_media_have_hourly_totals_of_their_own(medium: str, register: str) -> None:
    hourly = {"medium": medium, "interval_s": 3600, "period_s": 3600.0, "rounds": 24}
    made = config({"participant": "network"}, epoch=hourly)
    assert told(made, "Nord") == {None: (), register: ("network",)}
    check_registers(made.schema_of("Nord"))
    for wrong in ({"interval_s": 900, "period_s": 900.0}, {"verified": True}, {"noise_epsilon": 1.0}):
        with pytest.raises(ValidationError, match=f"because medium is {medium}"):
            config({"participant": "network"}, epoch=hourly | wrong)
