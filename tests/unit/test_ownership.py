"""From when to when a meter's values are a consumer's, where its place becomes another household's."""

import json
import math
from datetime import UTC, datetime
from typing import Any

from node.han.ownership import Ownership, ownership
from protocol.profiles.communication import HanProfile
from protocol.profiles.processing import ProcessingProfile
from tests.unit.profiled_account import processing

ONE, TWO, THREE = (f"DE{number:031}" for number in (1, 2, 3))
OLD, NEW = "ESTK0000000001/0", "ESTK0000000001/1"
MOVED = "2026-11-01T00:00:00+00:00"
MOVED_S = datetime(2026, 11, 1, tzinfo=UTC).timestamp()


def at(point: str, *meters: dict[str, Any], **changed: Any) -> ProcessingProfile:
    return ProcessingProfile.model_validate_json(json.dumps(processing(metering_point=point, meters=meters, **changed)))


def owned(*points: str, devices: list[tuple[ProcessingProfile, list[str | None]]]) -> Ownership:
    profile = {"id": "h", "role": "consumer", "user": "u", "valid_from": "2026-01-01T00:00:00Z"}
    return ownership([HanProfile.model_validate_json(json.dumps(profile | {"metering_points": points}))], devices)


def test_a_place_that_is_another_households_since_is_shown_until_then() -> None:
    devices: list[tuple[ProcessingProfile, list[str | None]]] = [
        (at(ONE, {"meter": "m"}, valid_to=MOVED), [OLD]), (at(TWO, {"meter": "m"}, valid_from=MOVED), [OLD]),
    ]  # fmt: skip
    before, after = owned(ONE, devices=devices), owned(TWO, devices=devices)
    assert [before.has(OLD, MOVED_S + each) for each in (-1, 0, 1)] == [True, True, False]
    assert [after.has(OLD, MOVED_S + each) for each in (-1, 0, 1)] == [False, True, True]
    assert owned(ONE, TWO, devices=devices).has(OLD, MOVED_S - 86_400, MOVED_S + 86_400), "of one's own two"


def test_an_exchanged_meter_that_is_elsewhere_is_shown_until_its_exchange() -> None:
    exchange = {"at": MOVED, "final": 1, "initial": 0}
    devices: list[tuple[ProcessingProfile, list[str | None]]] = [
        (at(ONE, {"meter": "m", "exchange": exchange}, {"meter": "n"}), [OLD, NEW]),
        (at(TWO, {"meter": "m"}, valid_from=MOVED), [OLD]), (at(THREE, {"meter": "gone"}), [None]),
    ]  # fmt: skip
    mine = owned(ONE, THREE, devices=devices)
    assert [mine.has(OLD, MOVED_S + each) for each in (-1, 1)] == [True, False]
    assert mine.has(NEW, MOVED_S - 1, math.inf), "nobody else's"
