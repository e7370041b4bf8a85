"""
The interface of a Theben CONEXA gateway (IF_GW_CON 1.4): `/smgw/m2m`, one path, methods in JSON.

Whoever comes to `/smgw/m2m` is sent to the account's own path.  All scalars of answers are texts.  Energy is given at
10⁻¹ Wh, which some clients take for granted; a finer value of a meter is cut off there.  Only active energy is shown,
since clients refuse a whole answer for a unit that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import trio

from node.han.accounts import Account
from node.han.api import HanAnswer, HanRefusal, HanRequest, Start, failure
from node.han.consumption import at_scaler
from node.han.facades.facade import is_active_energy, is_valid, number_of, signature_of
from node.han.facades.usage_points import UsagePoint, usage_point, usage_points
from node.han.models import Empty, LogEntry, Meter, Period, RegisterValue
from node.han.query import Query
from node.han.signing import SIGNED_MAX
from node.han.threads import in_thread
from node.han.view import LOG_RECORDS_MAX, View
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import DAY_S
from protocol.metering.obis import Obis
from protocol.metering.units import WATT_HOUR

ROOT: Final = "/smgw/m2m"
SCALER: Final = -1
SPAN_DAYS_MAX: Final = 31
_VERSION: Final = "1.2.0"
_OWN_TAF: Final = 7
_LOOKED_FOR: Final = (1, 7)
_CLOCK_BAD: Final = 1
_LEVELS: Final = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "FATAL"}
_ANY: Final = Query()
_Document = Mapping[str, Any]


class Theben:
    """See the head of the file; `self_test` carries out the action of that name."""

    name = "theben"

    def __init__(self, view: View, self_test: Start) -> None:
        self._view = view
        self._self_test = self_test
        self._methods: Mapping[str, Callable[[Account, _Document], Any]] = {
            "smgw-info": self._smgw_info, "user-info": self._user_info, "usage-point-info": self._usage_point_info,
            "readings": self._readings, "log": self._log,
        }  # fmt: skip

    def owns(self, path: str) -> bool:  # noqa: D102 - see Facade
        return path == ROOT or path.startswith(f"{ROOT}/")

    async def answer(self, request: HanRequest) -> HanAnswer:  # noqa: D102 - see Facade
        own = f"{ROOT}/{request.account.user}.sm/json"
        if request.method not in {"GET", "POST"}:
            return failure(405, "wrong_method", "expected POST", ("Allow", "GET, POST"))
        if request.path in {ROOT, f"{ROOT}/"}:
            return HanAnswer(307, headers=(("Location", own),))
        if request.path != own:
            return failure(403, "other_user", f"expected {own}")
        if request.method != "POST":
            return failure(405, "wrong_method", "expected POST", ("Allow", "POST"))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return failure(415, "content_type", "expected application/json")
        return await self._called(request.account, _read(request.body))

    async def _called(self, account: Account, asked: _Document) -> HanAnswer:
        began_s, method = trio.current_time(), asked.get("method")
        if method == "self-test":
            return await self._tested(account)
        work = self._methods.get(method) if isinstance(method, str) else None
        if not isinstance(method, str) or work is None:
            raise RemoteProtocolError("bad_method", f"expected one of {', '.join([*self._methods, 'self-test'])}")
        found = await in_thread(lambda: work(account, asked))
        return _answered(method, found, trio.current_time() - began_s)

    async def _tested(self, account: Account) -> HanAnswer:
        result = await self._self_test(account, Empty())
        if isinstance(result, HanRefusal):
            return failure(result.status, result.reason, result.detail)
        return _answered("self-test", {"result": "started"}, 0.0)

    # --- what the methods give ---------------------------------------------------------------------------------------

    def _smgw_info(self, account: Account, _asked: _Document) -> _Document:
        device = self._view.device(account, self._view.gateway_id, _ANY)
        wan = {"cert-index": "1", "sig": _der_hex(self._view, "signature"), "sub-ca": _der_hex(self._view, "sub-ca")}
        pem = self._view.certificate(account, "han", _ANY).pem
        return {
            "smgw-id": device.id, "smgw-state": f"{0 if device.is_time_good else _CLOCK_BAD:08x}",
            "smgw-time": _time(device.time),
            "firmware-info": {
                "component": "stromkreis", "version": device.software_version, "hash": device.software_sha256,
            },
            "certificates": {"han": {"tls": pem.encode().hex()}, "wan": [wan] if wan["sig"] else []},
        }  # fmt: skip

    def _user_info(self, account: Account, _asked: _Document) -> _Document:
        now = datetime.fromtimestamp(self._view.facts.clock(), UTC)
        return {
            "usage-points": [
                {
                    "usage-point-id": each.id, "usage-point-name": each.name, "metering-point-id": each.metering_point,
                    "taf-number": str(each.taf), "taf-state": each.state(now), "start-time": _time(each.valid_from),
                    "end-time": _time(each.valid_to), "capture-time": _time(now), "delivery-id": each.id,
                    "on-demand-profile-configured": "true" if each.taf == 6 else "false",
                    "meter": [{"meter-id": meter.id} for meter in each.meters],
                    "billing-Periods": [
                        {"start-time": _time(period.start), "end-time": _time(period.end)}
                        for period in self._periods(account, each)
                    ],
                }
                for each in self._points(account)
            ]
        }  # fmt: skip

    def _usage_point_info(self, account: Account, asked: _Document) -> _Document:
        point = usage_point(self._points(account), asked.get("usage-point-id"))
        channels = {"origin": [str(obis) for meter in point.meters for obis in _channels(meter)]}
        derived = [each.obis for period in self._periods(account, point) for each in period.registers]
        if derived:
            channels["derived"] = derived
        wanted = asked.get("database") or None
        return {
            "usage-point-id": point.id, "usage-point-name": point.name, "transparency-bit": "1", "taf-profile": "",
            "emts": list(point.receivers),
            "databases": [
                {
                    "database": name,
                    "channels": [
                        {"obis": _hex(obis), "scaler": str(SCALER), "unit": str(WATT_HOUR)}
                        for obis in dict.fromkeys(found)
                    ],
                }
                for name, found in channels.items()
                if wanted in (None, name)
            ],
        }  # fmt: skip

    def _readings(self, account: Account, asked: _Document) -> _Document:
        point = usage_point(self._points(account), asked.get("usage-point-id"))
        from_s, to_s = (_seconds(asked.get(name)) for name in ("fromtime", "totime"))
        now_s = int(self._view.facts.clock())
        if from_s is not None and (now_s if to_s is None else min(to_s, now_s)) - from_s > SPAN_DAYS_MAX * DAY_S:
            raise RemoteProtocolError("bad_span", f"fromtime: expected at most {SPAN_DAYS_MAX} days before totime")
        # The device's start is exclusive and its end inclusive, the other way round than in the HAN API.
        query = Query(None if from_s is None else from_s + 1, None if to_s is None else to_s + 1)
        wanted = asked.get("channels")
        is_last = str(asked.get("last-reading", "")).lower() == "true"
        if asked.get("database", "origin") == "derived":
            channels = self._derived(account, point, query, is_last=is_last)
        else:
            channels = self._origin(account, point, query, is_last=is_last)
        if isinstance(wanted, list) and wanted:
            channels = [each for each in channels if each["obis"] in wanted]
        return {"channels": [each for each in channels if each["readings"]]}

    def _origin(self, account: Account, point: UsagePoint, query: Query, *, is_last: bool) -> list[dict[str, Any]]:
        found = []
        for meter in point.meters:
            newest = self._view.reading(account, meter.id, _ANY).values if is_last else ()
            for obis in _channels(meter):
                values: tuple[RegisterValue, ...] = tuple(each for each in newest if each.obis == str(obis))
                if not is_last:
                    only = Query(query.from_s, query.to_s, obis=obis)
                    values = self._view.readings(account, meter.id, only).records
                found.append((meter, obis, values))
        is_signed = sum(len(values) for _, _, values in found) <= SIGNED_MAX
        return [
            {
                "obis": obis.to_bytes().hex(),
                "readings": [self._reading(meter.id, each, is_signed=is_signed) for each in values],
            }
            for meter, obis, values in found
        ]  # fmt: skip

    def _reading(self, meter: str, value: RegisterValue, *, is_signed: bool) -> dict[str, str]:
        shown = at_scaler(value, SCALER)
        return {
            "value": shown.value, "capture-time": _time(value.measured_at),
            "target-time": _time(value.registered_for or value.measured_at), "meter-status": value.status or "",
            "cosem-status": "0" if is_valid(value) else "4", "smgw-status": "0" if value.is_on_time else "1",
            "owner-number": "1", "signature": signature_of(self._view.signer, meter, shown) if is_signed else "",
        }  # fmt: skip

    def _derived(self, account: Account, point: UsagePoint, query: Query, *, is_last: bool) -> list[dict[str, Any]]:
        by_obis: dict[str, list[dict[str, str]]] = {}
        for period in self._periods(account, point):
            end_s = period.end.timestamp()
            is_in_span = (query.from_s or 0) <= end_s and (query.to_s is None or end_s < query.to_s)
            for each in period.registers if is_last or is_in_span else ():
                status = "0" if period.is_complete and period.is_billable else "4"
                by_obis.setdefault(each.obis, []).append({
                    "value": _shifted(each.value, period.scaler), "capture-time": _time(period.end),
                    "target-time": _time(period.end), "meter-status": "", "cosem-status": status, "smgw-status": "0",
                    "owner-number": "1", "signature": "",
                })  # fmt: skip
        return [
            {"obis": _hex(obis), "readings": readings[-1:] if is_last else readings}
            for obis, readings in by_obis.items()
        ]

    def _log(self, account: Account, asked: _Document) -> _Document:
        """Never refused for its arguments: display software of the PTB takes that for a broken device."""
        query = Query(_lenient(asked.get("fromtime")), _lenient(asked.get("totime")), count=LOG_RECORDS_MAX)
        entries = self._view.consumer_log(account, account.user, query).records
        first, count = number_of(asked.get("fromindex")) or 0, number_of(asked.get("count"))
        shown = [each for each in entries if each.number >= first][: count or None]
        return {"records": str(len(shown)), "entries": [_entry(account, each) for each in shown]}

    def _points(self, account: Account) -> list[UsagePoint]:
        found = usage_points(self._view, account, _OWN_TAF, _LOOKED_FOR)
        return [each for each in found if any(map(_channels, each.meters))]

    def _periods(self, account: Account, point: UsagePoint) -> list[Period]:
        return [
            period
            for profile in point.profiles
            for period in self._view.registers(account, profile.id, _ANY).closed
            if period.unit == "Wh"
        ]


def _read(body: bytes) -> _Document:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RemoteProtocolError("bad_body", "expected a JSON object with a method")
    return document


def _answered(method: str, found: _Document, took_s: float) -> HanAnswer:
    document = {"elapsed-time": str(round(took_s * 1000)), "method": method, "version": _VERSION, method: found}
    return HanAnswer(200, json.dumps(document).encode(), "application/json")


def _channels(meter: Meter) -> list[Obis]:
    return [obis for obis in map(Obis.parse, meter.registers) if is_active_energy(obis)]


def _entry(account: Account, entry: LogEntry) -> dict[str, str]:
    return {
        "index": str(entry.number), "event-id": str(entry.type), "event-sub-id": "0", "level": _LEVELS[entry.level],
        "message": entry.german, "outcome": "SUCCESS" if entry.level == "I" else "FAILURE", "subject-identity": "",
        "user-identity": account.user, "vendor-id": "stromkreis", "time": _time(entry.at), "version": "1",
    }  # fmt: skip


def _hex(obis: str) -> str:
    return Obis.parse(obis).to_bytes().hex()


def _shifted(value: str, scaler: int) -> str:
    number = int(value)
    return str(number * 10 ** (scaler - SCALER) if scaler >= SCALER else number // 10 ** (SCALER - scaler))


def _der_hex(view: View, name: str) -> str:
    der = view.certificates.get(name)
    return "" if der is None else der.hex()


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: object) -> int | None:
    """A time of a request (UTC where it has no offset), None for none.  Raises RemoteProtocolError."""
    if text in (None, ""):
        return None
    try:
        moment = datetime.fromisoformat(str(text))
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise RemoteProtocolError("bad_time", "expected a time such as 2026-11-30T12:00:00Z") from None


def _lenient(text: object) -> int | None:
    try:
        return _seconds(text)
    except RemoteProtocolError:
        return None
