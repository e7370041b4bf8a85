"""
The JSON paths of an EMH CASA gateway: `/json/metering/origin`, `/json/metering/derived`.

Scalers are those that the device always has, since some clients divide without a look at them: 10⁻³ for energy and
power, 10⁻² for current, voltage and frequency.  A finer value of a meter is cut off there.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from node.han.accounts import Account
from node.han.api import HanAnswer, HanRequest, failure
from node.han.consumption import at_scaler, code_of
from node.han.facades.facade import energy_first, signature_of
from node.han.facades.usage_points import UsagePoint, usage_point, usage_points
from node.han.models import RegisterValue
from node.han.query import Query
from node.han.signing import logical_name
from node.han.threads import in_thread
from node.han.view import NotThere, View
from protocol.metering.units import AMPERE, VOLT, WATT, WATT_HOUR

ROOT: Final = "/json/metering/"
_HERTZ: Final = 44
_SCALERS: Final = {WATT_HOUR: -3, WATT: -3, AMPERE: -2, VOLT: -2, _HERTZ: -2}
_OWN_TAF: Final = 1
_LOOKED_FOR: Final = (1,)


class Emh:
    """See the head of the file."""

    name = "emh"

    def __init__(self, view: View) -> None:
        self._view = view

    def owns(self, path: str) -> bool:  # noqa: D102 - see Facade
        return path.startswith(ROOT)

    async def answer(self, request: HanRequest) -> HanAnswer:  # noqa: D102 - see Facade
        if request.method != "GET":
            return failure(405, "wrong_method", "expected GET", ("Allow", "GET"))
        document = await in_thread(lambda: self._document(request.account, request.path.removeprefix(ROOT)))
        return HanAnswer(200, json.dumps(document).encode(), "application/json")

    def _document(self, account: Account, path: str) -> Any:
        match path.rstrip("/").split("/"):
            case ["origin"]:
                return self._view.meter_ids(account)
            case ["origin", meter, "extended"]:
                return self._extended(account, meter)
            case ["derived"]:
                return [each.id for each in self._points(account)]
            case ["derived", name]:
                return self._contract(account, usage_point(self._points(account), name))
        raise NotThere

    def _extended(self, account: Account, meter: str) -> dict[str, Any]:
        values = energy_first(self._view.reading(account, meter, Query()).values)
        newest = max((each.measured_at for each in values), default=datetime.fromtimestamp(0, UTC))
        return {
            "capture_time": newest.isoformat(timespec="seconds"), "timestamp": int(newest.timestamp()),
            "status": next((each.status for each in values if each.status), "0" * 16),
            "values": [self._value(meter, each) for each in values if code_of(each.unit) in _SCALERS],
        }  # fmt: skip

    def _value(self, meter: str, value: RegisterValue) -> dict[str, Any]:
        unit = code_of(value.unit)
        shown = at_scaler(value, _SCALERS[unit])
        return {
            "logical_name": logical_name(shown.obis, meter), "value": shown.value, "scaler": shown.scaler, "unit": unit,
            "signature": signature_of(self._view.signer, meter, shown),
        }  # fmt: skip

    def _points(self, account: Account) -> list[UsagePoint]:
        return usage_points(self._view, account, _OWN_TAF, _LOOKED_FOR)

    def _contract(self, account: Account, point: UsagePoint) -> dict[str, Any]:
        now = datetime.fromtimestamp(self._view.facts.clock(), UTC)
        ends = point.valid_to
        return {
            "taf_type": f"TAF-{point.taf}", "taf_state": point.state(now), "taf_name": point.name,
            "taf_identifier": point.id, "capture_period": point.period_s,
            "sensor_domains": [each.id for each in point.meters], "metering_point_id": point.metering_point,
            "validity_start": 0 if point.valid_from is None else int(point.valid_from.timestamp()),
            "validity_end": None if ends is None else int(ends.timestamp()), "user_domain": account.user,
            "logical_name": f"{point.id}.sm", "active_tariff": None, "emt_channel_name": ",".join(point.receivers),
        }  # fmt: skip
