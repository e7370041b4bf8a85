"""
The market participant's inbox: deliveries are opened, checked and kept, each once, whoever sends it again.

A gateway's own delivery is opened before it is answered, so that one which does not fit is refused.  What the
administrator passed on waits in the database and is opened by a task.  What is kept is the message as it came,
encrypted to the participant's key: values are in clear only in an export.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

import trio
from cryptography import x509
from sqlalchemy.exc import SQLAlchemyError

from coordinator.storage.deliveries import DeliveryRecord, DeliveryRepository, DeliveryState
from coordinator.storage.engine import fault_of
from coordinator.threads import in_thread
from protocol import cms
from protocol.cosem.delivery import DELIVERY_ID, Delivery, PeriodResult, canonical_name
from protocol.errors import RemoteProtocolError
from protocol.metering.units import unit_symbol

log = logging.getLogger(__name__)
MESSAGE_SIZE_MAX: Final = 4 << 20
LIMITS: Final = cms.Limits(message_size=MESSAGE_SIZE_MAX)
COLUMNS: Final = (
    "delivery", "sender", "metering_point", "profile", "taf", "billable", "kind", "obis", "time", "value", "unit",
    "valid", "status", "until", "subject",
)  # fmt: skip
_LOAD_PROFILE: Final = 7
_PERIOD_S_MAX: Final = 400 * 86_400
_NAME_SIZE_MAX: Final = 64  # as the column is wide
_SCALER_END: Final = 128
_TEXT: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_LOOK_S: Final = 2.0
_AT_ONCE: Final = 64


class MissingPeriod(NamedTuple):
    """Between two deliveries of a gateway's profile there is none for [`start_s`, `end_s`) (Unix, s)."""

    gateway: str
    profile: str
    start_s: int
    end_s: int


class DeliveryInbox:
    """
    Keeps what `key` opens.

    `signers_of` gives a gateway's signature certificates, `administrator` is the certificate of who passes deliveries
    on, None where nobody does.
    """

    def __init__(
        self, deliveries: DeliveryRepository, key: cms.KeyPair, administrator: x509.Certificate | None,
        signers_of: Callable[[str], Sequence[x509.Certificate]], counted: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.deliveries = deliveries
        self._key = key
        self._administrator = administrator
        self._signers_of = signers_of
        self._counted = counted

    def receive(
        self, gateway_id: str, signers: Sequence[x509.Certificate], delivery_id: str, message: bytes, now_ms: int
    ) -> bool:  # fmt: skip
        """
        Open and keep a delivery of a gateway; False for one that is here already.

        Raises RemoteProtocolError: `delivery_known` for an id that another gateway's has, `bad_delivery`, what
        `cms.unprotect` and `Delivery.from_xml` raise.
        """
        known = self.deliveries.get(delivery_id)
        if known is not None:
            if known.gateway_id != gateway_id:
                raise RemoteProtocolError("delivery_known", "another sender's delivery has this id")
            self._counted("known")
            return False
        delivery = self._opened(message, signers, delivery_id)
        if delivery.sender != canonical_name(gateway_id):
            raise RemoteProtocolError("bad_delivery", "the sender is not the gateway that signed")
        result = delivery.result
        added = self.deliveries.add(
            DeliveryRecord(
                delivery_id, gateway_id, DeliveryState.STORED, "", message, delivery.sender, result.profile, result.taf,
                result.start_s, result.end_s, result.is_complete, missing_values(result), now_ms,
            )
        )  # fmt: skip
        self._counted("stored" if added else "known")
        return added

    async def run(self) -> None:
        """Open what the administrator passed on, again and again."""
        while True:
            try:
                while await in_thread(self.open_new):
                    pass
            except SQLAlchemyError as error:
                log.error("deliveries are not opened, the database fails: %s", fault_of(error))
            await trio.sleep(_LOOK_S)

    def open_new(self) -> bool:
        """Open some of those that wait; whether there may be more."""
        found = self.deliveries.new(_AT_ONCE)
        for each in found:
            try:
                delivery = self._opened(each.message, self._signers(each), each.delivery_id)
                if DELIVERY_ID.fullmatch(delivery.sender) is None or delivery.result.metering_point:
                    raise RemoteProtocolError("bad_delivery", "a pseudonymous delivery names its sender")
            except RemoteProtocolError as error:
                self.deliveries.refuse(each.delivery_id, error.reason)
                self._counted("refused")
                log.warning("a delivery that was passed on is refused: %s", error)
            else:
                self.deliveries.store(
                    each.delivery_id, delivery.sender, delivery.result, missing_values(delivery.result)
                )
                self._counted("stored")
        return len(found) == _AT_ONCE

    def export_csv(self, from_s: int, to_s: int) -> Iterator[bytes]:
        """
        All values of periods that begin from `from_s` up to and without `to_s` (Unix, s) as CSV, in parts.

        A message that does not open any more is left out and logged: its gateway's certificate is not known any more.
        """
        yield _lines([COLUMNS])
        for record in self.deliveries.stored(from_s, to_s):
            try:
                delivery = self._opened(record.message, self._signers(record), record.delivery_id)
            except RemoteProtocolError as error:
                log.error("delivery %s does not open: %s", record.delivery_id, error)
                continue
            yield _lines(_rows(delivery))

    def missing_periods(self) -> list[MissingPeriod]:
        """Holes between the deliveries of each gateway's profiles."""
        found: list[MissingPeriod] = []
        before: tuple[str, str, int] | None = None
        for gateway, profile, start_s, end_s in self.deliveries.starts():
            if before is not None and before[:2] == (gateway, profile) and start_s > before[2]:
                found.append(MissingPeriod(gateway, profile, before[2], start_s))
            before = gateway, profile, end_s
        return found

    def _signers(self, record: DeliveryRecord) -> Sequence[x509.Certificate]:
        if record.gateway_id is not None:
            return self._signers_of(record.gateway_id)
        return [] if self._administrator is None else [self._administrator]

    def _opened(self, message: bytes, signers: Sequence[x509.Certificate], delivery_id: str) -> Delivery:
        delivery = Delivery.from_xml(cms.unprotect(message, self._key, signers, limits=LIMITS).content)
        if delivery.id != delivery_id:
            raise RemoteProtocolError("bad_delivery", "the content is another delivery's")
        _check(delivery.result)
        return delivery


def _check(result: PeriodResult) -> None:
    times = [each.at_s for each in result.rows]
    if result.period_s <= 0 or not 0 <= result.start_s < result.end_s <= result.start_s + _PERIOD_S_MAX:
        raise RemoteProtocolError("bad_delivery", "expected a billing period and a registration period")
    if len(result.profile) > _NAME_SIZE_MAX or len(result.metering_point) > _NAME_SIZE_MAX:
        raise RemoteProtocolError("bad_delivery", f"a name of over {_NAME_SIZE_MAX} characters")
    if times != sorted(set(times)) or (times and times[-1] > result.end_s):
        raise RemoteProtocolError("bad_delivery", "expected values in order of time, none after the period")
    if len({obis for obis, _ in result.registers}) != len(result.registers):
        raise RemoteProtocolError("bad_delivery", "a register appears twice")
    if any(not -_SCALER_END <= each < _SCALER_END for each in (result.scaler, *(one.scaler for one in result.details))):
        raise RemoteProtocolError("bad_delivery", "a scaler that no register has")
    for each in result.details:
        if _TEXT.fullmatch(each.what) is None or (each.subject and _TEXT.fullmatch(each.subject) is None):
            raise RemoteProtocolError("bad_delivery", "a detail of another name than details have")
        if not 0 <= each.at_ms <= each.until_ms <= 1000 * (result.end_s + _PERIOD_S_MAX):
            raise RemoteProtocolError("bad_delivery", "a detail of another time than details have")


def missing_values(result: PeriodResult) -> int:
    """The registration times of a load profile without a valid value; 0 for other use cases."""
    if result.taf != _LOAD_PROFILE:
        return 0
    wanted = (result.end_s - result.start_s) // result.period_s + 1
    return wanted - sum(each.is_valid for each in result.rows if result.start_s <= each.at_s)


def _rows(delivery: Delivery) -> Iterator[tuple[object, ...]]:
    result = delivery.result

    def number(mantissa: int) -> str:
        return f"{Decimal(mantissa).scaleb(result.scaler):f}"

    head = (
        delivery.id, delivery.sender, result.metering_point, result.profile, result.taf, int(result.is_billable),
    )  # fmt: skip
    unit, end = unit_symbol(result.unit), _time(result.end_s)
    for obis, value in result.registers:
        yield (*head, "register", obis, end, number(value), unit, int(result.is_complete), "", "", "")
    for row in result.rows:
        status, shown = _hexadecimal(row.status), number(row.value)
        yield (*head, "value", result.obis, _time(row.at_s), shown, unit, int(row.is_valid), status, "", "")
    for each in result.details:
        shown = f"{Decimal(each.value).scaleb(each.scaler):f}"
        yield (
            *head, each.what, each.obis, _time_ms(each.at_ms), shown, unit_symbol(each.unit), int(each.is_valid),
            _hexadecimal(each.status), _time_ms(each.until_ms), each.subject,
        )  # fmt: skip


def _hexadecimal(status: int | None) -> str:
    return "" if status is None else f"{status:x}"


def _time(moment_s: int) -> str:
    return f"{datetime.fromtimestamp(moment_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _time_ms(moment_ms: int) -> str:
    return f"{datetime.fromtimestamp(moment_ms / 1000, UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _lines(rows: Sequence[Sequence[object]] | Iterator[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
