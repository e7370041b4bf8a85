"""
The COSEM objects of the simulated DLMS meter: what a get, set or action of one attribute gives.

Registers come from a callback, so that load profiles, tests and the demo give the same meter different households.
The profile records them at `capture`, as a real load profile does on its quarter hour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime

from node.lmn.dlms.apdu import SUCCESS
from node.lmn.dlms.axdr import Data, Type, octets, structure
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.fields import Access, Attribute
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

Register = tuple[Obis, int, int, int]
Registers = Callable[[datetime], list[Register]]

ASSOCIATION = Obis(0, 0, 40, 0, 0, 255)
CLOCK = Obis(0, 0, 1, 0, 0, 255)
DEVICE_NAME = Obis(0, 0, 42, 0, 0, 255)
DEVICE_ID = Obis(0, 0, 96, 1, 0, 255)
MESSAGE = Obis(0, 0, 96, 13, 0, 255)
LOAD_PROFILE = Obis(1, 0, 99, 1, 0, 255)
READ_WRITE_DENIED, OBJECT_UNDEFINED, TYPE_UNMATCHED, OTHER_REASON = 3, 4, 12, 250


def _long(value: int) -> Data:
    return Data(Type.LONG_UNSIGNED, value)


class CosemObjects:
    """
    The objects of one meter.  `clock` is the simulation's time, aware; `message` is the one writable attribute.

    An answer is data or a data-access-result; a parameter of a shape that no client may send is `type-unmatched`.
    """

    def __init__(
        self,
        device: str,
        registers: Registers,
        clock: Callable[[], datetime],
        *,
        capture_period_s: int = 900,
        profile_size_max: int = 4000,
    ) -> None:
        self.device = device
        self.registers = registers
        self.clock = clock
        self.message = Data(Type.OCTET_STRING, b"")
        self._capture_period_s = capture_period_s
        self._profile: deque[tuple[datetime, tuple[int, ...]]] = deque(maxlen=profile_size_max)

    def capture(self) -> None:
        """Record a row of the load profile at the present time."""
        now = self.clock()
        self._profile.append((now, tuple(value for _, value, _, _ in self.registers(now))))

    def get(self, attribute: Attribute, access: Access | None) -> Data | int:
        """The attribute's value now, or why not."""
        if attribute.index == 1 and (attribute.class_id, attribute.obis) in self._catalogue():
            return octets(attribute.obis.to_bytes())
        match (attribute.class_id, attribute.obis, attribute.index):
            case (15, code, 2) if code == ASSOCIATION:
                return Data(Type.ARRAY, tuple(self._list_entry(*item) for item in self._catalogue()))
            case (8, code, 2) if code == CLOCK:
                return octets(self._now().to_bytes())
            case (1, code, 2) if code in (DEVICE_NAME, DEVICE_ID):
                return octets(self.device.encode())
            case (1, code, 2) if code == MESSAGE:
                return self.message
            case (7, code, index) if code == LOAD_PROFILE:
                return self._profile_attribute(index, access)
            case (3, code, index) if index in (2, 3):
                return self._register(code, index)
        return OBJECT_UNDEFINED

    def set(self, attribute: Attribute, data: Data) -> int:
        """Write; only the message may be."""
        if (attribute.class_id, attribute.obis, attribute.index) != (1, MESSAGE, 2):
            return READ_WRITE_DENIED
        if data.type is not Type.OCTET_STRING:
            return TYPE_UNMATCHED
        self.message = data
        return SUCCESS

    def action(self, method: Attribute, _parameters: Data | None) -> tuple[int, Data | None]:
        """Method 1 of the profile empties it, method 2 captures."""
        if (method.class_id, method.obis) != (7, LOAD_PROFILE) or method.index not in (1, 2):
            return OBJECT_UNDEFINED, None
        if method.index == 1:
            self._profile.clear()
        else:
            self.capture()
        return SUCCESS, None

    def notification_rows(self) -> Data:
        """A pushed list: clock, device, and a row of code, value, scaler and unit for each register."""
        head = (
            structure(octets(CLOCK.to_bytes()), octets(self._now().to_bytes())),
            structure(octets(DEVICE_ID.to_bytes()), Data(Type.VISIBLE_STRING, self.device.encode())),
        )
        rows = (
            structure(octets(code.to_bytes()), _number(value), _scaler_unit(scaler, unit))
            for code, value, scaler, unit in self.registers(self.clock())
        )
        return Data(Type.ARRAY, (*head, *rows))

    def _now(self) -> CosemDateTime:
        return CosemDateTime.from_datetime(self.clock())

    def _catalogue(self) -> list[tuple[int, Obis]]:
        fixed = [(15, ASSOCIATION), (8, CLOCK), (1, DEVICE_NAME), (1, DEVICE_ID), (1, MESSAGE), (7, LOAD_PROFILE)]
        return fixed + [(3, code) for code, *_ in self.registers(self.clock())]

    def _list_entry(self, class_id: int, code: Obis) -> Data:
        count = {15: 8, 8: 9, 1: 2, 7: 8, 3: 3}[class_id]
        attributes = Data(
            Type.ARRAY,
            tuple(
                structure(Data(Type.INTEGER, number), Data(Type.ENUM, 1), Data(Type.NULL))
                for number in range(1, count + 1)
            ),
        )
        rights = structure(attributes, Data(Type.ARRAY, ()))
        return structure(_long(class_id), Data(Type.UNSIGNED, 0), octets(code.to_bytes()), rights)

    def _register(self, code: Obis, index: int) -> Data | int:
        for known, value, scaler, unit in self.registers(self.clock()):
            if known == code:
                return _number(value) if index == 2 else _scaler_unit(scaler, unit)
        return OBJECT_UNDEFINED

    def _profile_attribute(self, index: int, access: Access | None) -> Data | int:
        columns = [(8, CLOCK)] + [(3, code) for code, *_ in self.registers(self.clock())]
        if index == 2:
            try:
                rows = self._selected(access)
            except (RemoteProtocolError, TypeError, IndexError, AttributeError, ValueError):
                return TYPE_UNMATCHED
            return Data(
                Type.ARRAY,
                tuple(
                    structure(octets(CosemDateTime.from_datetime(when).to_bytes()), *map(_number, values))
                    for when, values in rows
                ),
            )
        if index == 3:
            entries = (
                structure(_long(class_id), octets(code.to_bytes()), Data(Type.INTEGER, 2), _long(0))
                for class_id, code in columns
            )
            return Data(Type.ARRAY, tuple(entries))
        simple = {4: self._capture_period_s, 7: len(self._profile), 8: self._profile.maxlen or 0}
        if index in simple:
            return Data(Type.DOUBLE_LONG_UNSIGNED, simple[index])
        if index == 5:
            return Data(Type.ENUM, 1)
        return OBJECT_UNDEFINED

    def _selected(self, access: Access | None) -> list[tuple[datetime, tuple[int, ...]]]:
        rows = list(self._profile)
        if access is None:
            return rows
        parameters = access.parameters.value
        if access.selector == 1:
            begin, end = (CosemDateTime.from_bytes(limit.value).to_datetime() for limit in parameters[1:3])
            if begin is None or end is None:
                raise ValueError("a range needs two times")
            return [row for row in rows if begin <= row[0] <= end]
        if access.selector == 2:
            first, last = parameters[0].value, parameters[1].value or len(rows)
            return rows[max(first, 1) - 1 : last]
        raise ValueError("no such selector")


def _number(value: int) -> Data:
    return Data(Type.DOUBLE_LONG_UNSIGNED if 0 <= value < 1 << 32 else Type.LONG64, value)


def _scaler_unit(scaler: int, unit: int) -> Data:
    return structure(Data(Type.INTEGER, scaler), Data(Type.ENUM, unit))
