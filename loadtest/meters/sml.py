"""
Simulated SML meters, without I/O: files in, files out.  `loadtest.meters.sml_server` puts them on TCP.

`SmlMeter` computes its registers by a callback and answers all that a gateway asks by TR-03109-1 detailed specification
chapter 9: lists, COSEM objects by GetProcParameter or GetCosem, device information, a load profile, the setting of
parameters.  The rest it refuses with an Attention, as a real meter does.  `ReplayMeter` sends recorded frames byte for
byte, broken ones included, and answers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from node.lmn.sml.bodies import (
    AttentionResponse,
    Body,
    CloseRequest,
    CloseResponse,
    CosemAttribute,
    GetCosemRequest,
    GetCosemResponse,
    GetListRequest,
    GetListResponse,
    GetProcParameterRequest,
    GetProcParameterResponse,
    GetProfilePackRequest,
    GetProfilePackResponse,
    Message,
    OpenRequest,
    OpenResponse,
    ProfileHeader,
    ProfilePeriod,
    SetProcParameterRequest,
    SignedValue,
)
from node.lmn.sml.client import (
    ATTENTION_OK,
    CLASS_DATA,
    LOAD_PROFILE,
    MAGNETIC_TAMPER,
    MECHANICAL_TAMPER,
    object_path,
    read_path,
)
from node.lmn.sml.messages import encode_file
from node.lmn.sml.readings import SCALER_UNIT_ATTRIBUTE, STATUS_ATTRIBUTE, VALUE_ATTRIBUTE, server_id
from node.lmn.sml.transport import wrap
from node.lmn.sml.values import SEC_INDEX, TIMESTAMP, ListEntry, Time, Tree, Value, signed, unsigned
from protocol.metering.obis import Obis

Register = tuple[Obis, int, int, int]  # code, mantissa, scaler, DLMS unit code
Registers = Callable[[datetime], Sequence[Register]]

_STANDARD_LIST = bytes.fromhex("0100620affff")
_NOT_ALLOWED = bytes.fromhex("8181c7c7fe06")
_UNKNOWN_OBJECT = bytes.fromhex("8181c7c7fe0e")
_UNEXPECTED_MESSAGE = bytes.fromhex("8181c7c7fe0d")
_NO_ENTRIES = bytes.fromhex("8181c7c7fe13")
_DEVICE_ID = Obis(1, 0, 96, 1, 0, 255)
_TAMPER_BITS = {MAGNETIC_TAMPER: 1 << 9, MECHANICAL_TAMPER: 1 << 10}  # of the status word, by where it is reset
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


class Meter(Protocol):
    """What a server needs of a meter."""

    @property
    def server_id(self) -> bytes:
        """Under which name requests reach it."""
        ...

    @property
    def push_interval_s(self) -> float | None:
        """How often it speaks unasked; None: never."""
        ...

    def push(self, now: datetime) -> bytes:
        """The frame that it sends unasked."""
        ...

    def respond(self, messages: Sequence[Message], now: datetime) -> bytes | None:
        """The frame that answers a request file, None for silence."""
        ...


@dataclass(slots=True)
class SmlMeter:
    """
    One meter.  `device` is its id as on its plate, `1EMH0012345678`.

    `profile_period_s` with a registers callback that knows the past is its load profile.  `parameters` holds what was
    set, by path, once `accepts` has agreed; a path in it can be read back and set again.  `status` is the meter's word
    (bit 0 worth 1), whose tamper bits a gateway may reset.  Time counts from `started_at`, as seconds of operation.
    """

    device: str
    registers: Registers
    push_interval_s: float | None = None
    started_at: datetime = _EPOCH
    profile_period_s: int = 900
    information: Mapping[Obis, bytes] = field(default_factory=dict)
    parameters: dict[tuple[bytes, ...], Tree] = field(default_factory=dict)
    status: int = 0
    accepts: Callable[[tuple[bytes, ...], Tree], bool] = lambda _path, _tree: True
    server_id: bytes = field(init=False)
    _files: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.server_id = server_id(self.device)

    def push(self, now: datetime) -> bytes:
        """An Open, the standard list and a Close, as meters send them every few seconds."""
        self._files += 1
        file_id = self._files.to_bytes(8, "big")[-4:]
        bodies: tuple[Body, ...] = (self._opened(None, file_id, now), self._list(None, now), CloseResponse())
        return wrap(encode_file(Message(file_id + bytes((i,)), body) for i, body in enumerate(bodies)))

    def respond(self, messages: Sequence[Message], now: datetime) -> bytes | None:
        """The answer, message by message with the request's ids; None where there was no Open request."""
        if not messages or not isinstance(messages[0].body, OpenRequest):
            return None
        answers = [
            message._replace(body=body) for message in messages for body in self._answer(message.body, now)
        ]  # fmt: skip
        return wrap(encode_file(answers))

    def _answer(self, body: Body, now: datetime) -> Iterator[Body]:
        match body:
            case OpenRequest():
                yield self._opened(body.client_id, body.req_file_id, now)
            case CloseRequest():
                yield CloseResponse()
            case GetListRequest():
                yield self._list(body, now)
            case GetProcParameterRequest():
                tree = self._object(body.parameter_tree_path, now)
                if tree is None:
                    yield AttentionResponse(self.server_id, _UNKNOWN_OBJECT)
                else:
                    yield GetProcParameterResponse(self.server_id, body.parameter_tree_path, tree)
            case SetProcParameterRequest() if not self.accepts(body.parameter_tree_path, body.parameter_tree):
                yield AttentionResponse(self.server_id, _NOT_ALLOWED)
            case SetProcParameterRequest():
                self.parameters[body.parameter_tree_path] = body.parameter_tree
                for obis, bit in _TAMPER_BITS.items():
                    if body.parameter_tree_path == object_path(CLASS_DATA, obis, VALUE_ATTRIBUTE):
                        self.status &= ~bit
                yield AttentionResponse(self.server_id, ATTENTION_OK)
            case GetCosemRequest():
                path = object_path(body.class_id, Obis.from_bytes(body.obj_name)) if len(body.obj_name) == 6 else ()
                tree = self._object(path, now)
                if tree is None:
                    yield AttentionResponse(self.server_id, _UNKNOWN_OBJECT)
                else:
                    yield self._cosem(body, tree)
            case GetProfilePackRequest():
                yield self._profile(body, now)
            case _:
                yield AttentionResponse(self.server_id, _UNEXPECTED_MESSAGE)

    def _seconds(self, now: datetime) -> Time:
        return Time(SEC_INDEX, max(0, int((now - self.started_at).total_seconds())) & 0xFFFFFFFF)

    def _opened(self, client_id: bytes | None, file_id: bytes, now: datetime) -> OpenResponse:
        return OpenResponse(None, client_id, file_id, self.server_id, self._seconds(now), 1)

    def _list(self, request: GetListRequest | None, now: datetime) -> GetListResponse:
        identity = ListEntry(_DEVICE_ID.to_bytes(), None, None, None, None, self.server_id)
        entries = (identity, *(_entry(*register, self.status or None) for register in self.registers(now)))
        client_id = request.client_id if request is not None else None
        name = (request.list_name if request is not None else None) or _STANDARD_LIST
        return GetListResponse(client_id, self.server_id, name, self._seconds(now), entries)

    def _object(self, path: tuple[bytes, ...], now: datetime) -> Tree | None:
        if path in self.parameters:
            return self.parameters[path]
        target = read_path(path)
        if target is None:
            return None
        class_id, obis = target
        if class_id == CLASS_DATA:
            content = self.server_id if obis == _DEVICE_ID else self.information.get(obis)
            return None if content is None else Tree(obis.to_bytes(), None, (_attribute(VALUE_ATTRIBUTE, content),))
        for code, mantissa, scaler, unit in self.registers(now):
            if code == obis:
                scaler_unit = (_attribute(1, signed(scaler)), _attribute(2, unsigned(unit)))
                children = (
                    _attribute(VALUE_ATTRIBUTE, signed(mantissa)),
                    Tree(bytes((SCALER_UNIT_ATTRIBUTE,)), None, scaler_unit),
                    _attribute(STATUS_ATTRIBUTE, unsigned(self.status)),
                )
                return Tree(obis.to_bytes(), None, children)
        return None

    def _cosem(self, request: GetCosemRequest, tree: Tree) -> GetCosemResponse:
        attributes = tuple(
            CosemAttribute(child.name[-1], child)
            for child in tree.children or ()
            if request.attributes is None or child.name[-1] in request.attributes
        )
        return GetCosemResponse(
            request.client_id, self.server_id, request.obj_name, request.class_id, request.class_version, attributes
        )

    def _profile(self, request: GetProfilePackRequest, now: datetime) -> Body:
        begin, end = request.begin_time, request.end_time
        if request.parameter_tree_path != (LOAD_PROFILE.to_bytes(),) or begin is None or end is None:
            return AttentionResponse(self.server_id, _UNKNOWN_OBJECT)
        period_s = self.profile_period_s
        stamps = range(-(-begin.seconds // period_s) * period_s, min(end.seconds, int(now.timestamp())) + 1, period_s)
        if not stamps:
            return AttentionResponse(self.server_id, _NO_ENTRIES)
        wanted = request.object_list
        table = [
            [register for register in self.registers(datetime.fromtimestamp(stamp, UTC))
             if wanted is None or register[0].to_bytes() in wanted]
            for stamp in stamps
        ]  # fmt: skip
        header = tuple(ProfileHeader(obis.to_bytes(), unit, scaler) for obis, _, scaler, unit in table[0])
        rows = tuple(
            ProfilePeriod(Time(TIMESTAMP, stamp), 0, tuple(SignedValue(signed(row[1])) for row in registers))
            for stamp, registers in zip(stamps, table, strict=True)
        )
        path = request.parameter_tree_path
        return GetProfilePackResponse(self.server_id, self._seconds(now), period_s, path, header, rows)


@dataclass(slots=True)
class ReplayMeter:
    """Pushes `frames[index(now)]`, byte for byte, and answers nothing."""

    frames: Sequence[bytes]
    index: Callable[[datetime], int]
    push_interval_s: float | None = 1.0
    server_id: bytes = b""

    def push(self, now: datetime) -> bytes:
        """The recorded frame of this moment."""
        return self.frames[self.index(now)]

    def respond(self, messages: Sequence[Message], now: datetime) -> bytes | None:
        """Silence, whatever is asked: a recording cannot hear."""
        del messages, now
        return None


def _entry(obis: Obis, mantissa: int, scaler: int, unit: int, status: int | None) -> ListEntry:
    # Energies are 64 bits wide in real meters whatever they hold; powers are signed.
    value = signed(mantissa)._replace(size=8) if obis.d == 8 else signed(mantissa)
    return ListEntry(obis.to_bytes(), status, None, unit, scaler, value)


def _attribute(number: int, content: Value) -> Tree:
    return Tree(bytes((number,)), content)


def by_server_id(meters: Iterable[Meter]) -> dict[bytes, Meter]:
    """The meters of one bus by the name that requests use."""
    return {meter.server_id: meter for meter in meters}
