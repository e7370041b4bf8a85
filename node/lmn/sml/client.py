"""
The SML client of a gateway, without I/O: requests out as bytes, answers in as messages.

An `Exchange` is one request file: Open, one message per question, Close.  A meter answers with one file that names
the request's file id and repeats each question's transaction id, so an answer is distinguished from what the meter
says unasked by these ids alone.  Ids are a mark that no meter's own files have, and a counter: they must differ, not
be secret.  So one `SmlClient` serves a connection for life; a new one would take a late answer to the old one's
request as its own.

The use cases of TR-03109-1 detailed specification chapter 9 are methods, one each.  Where chapter 9 leaves structures
"to be defined" (setting the time, state of the clock, names of stored files) or refers to the clauses of
DIN VDE 0418-63-9 that were not at hand (how a COSEM object becomes a tree path), the form here is ours: a path is the
class id in two octets, the OBIS code, and, where one attribute is meant, its number in one octet; a structure is a
tree with a child per element, numbered from 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from node.lmn.sml.bodies import (
    AttentionResponse,
    Body,
    CloseRequest,
    CloseResponse,
    GetListRequest,
    GetProcParameterRequest,
    GetProcParameterResponse,
    Message,
    OpenRequest,
    OpenResponse,
    SetProcParameterRequest,
)
from node.lmn.sml.messages import encode_file
from node.lmn.sml.readings import VALUE_ATTRIBUTE
from node.lmn.sml.transport import wrap
from node.lmn.sml.values import Tree, Value
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

CLASS_DATA: Final = 1
CLASS_REGISTER: Final = 3
CLASS_ADVANCED_EXTENDED_REGISTER: Final = 32770
ATTENTION_OK: Final = bytes.fromhex("8181c7c7fd00")
LOAD_PROFILE: Final = Obis(1, 0, 99, 1, 0, 255)
METER_KEY_AND_CERTIFICATE: Final = Obis.from_bytes(bytes.fromhex("01005e310004"))
GATEWAY_CERTIFICATE: Final = Obis.from_bytes(bytes.fromhex("01005e310008"))
MAGNETIC_TAMPER: Final = Obis.from_bytes(bytes.fromhex("01005e310104"))
MECHANICAL_TAMPER: Final = Obis.from_bytes(bytes.fromhex("01005e310109"))
DEVICE_CLASS: Final = Obis.from_bytes(bytes.fromhex("01005e310105"))
DEVICE_ID: Final = Obis.from_bytes(bytes.fromhex("0100600100ff"))
FIRMWARE: Final = tuple(Obis(1, 0, 0, 2, 0, n) for n in range(16))
HARDWARE: Final = tuple(Obis(1, 0, 96, 50, n, 4) for n in range(1, 16))
_ELECTRICITY = 1
_MARK = b"SMGW"


def object_path(class_id: int, obis: Obis, attribute: int | None = None) -> tuple[bytes, ...]:
    """The tree path of a COSEM object, or of one of its attributes."""
    path = (class_id.to_bytes(2, "big"), obis.to_bytes())
    return path if attribute is None else (*path, bytes((attribute,)))


def read_path(path: Sequence[bytes]) -> tuple[int, Obis] | None:
    """(class id, OBIS code) of a path that names an object, None for any other."""
    if len(path) not in (2, 3) or len(path[0]) != 2 or len(path[1]) != 6:
        return None
    return int.from_bytes(path[0], "big"), Obis.from_bytes(path[1])


def register_class(obis: Obis) -> int:
    """Which class holds a register [REQ.SML.CLI.RequestMeterData.30]: electrical energy has one of its own."""
    electrical_energy = obis.a == _ELECTRICITY and obis.d in (8, 9)
    return CLASS_ADVANCED_EXTENDED_REGISTER if electrical_energy else CLASS_REGISTER


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    One request file on its way: its frame, and the ids by which its answer is known.

    `needs_tls`: it carries a key or certificate, and goes through a TLS session or not at all.
    """

    frame: bytes = field(repr=False)
    file_id: bytes
    transaction_ids: tuple[bytes, ...]
    needs_tls: bool = False

    def answer(self, messages: Sequence[Message]) -> list[Message] | None:
        """
        The messages of a received file that answer this request, None where the file is not its answer.

        An Attention for the whole file (say, a refused Open) is part of the answer.
        """
        mine = any(
            message.body.req_file_id == self.file_id
            if isinstance(message.body, OpenResponse)
            else message.transaction_id in self.transaction_ids
            for message in messages
        )
        if not mine:
            return None
        return [message for message in messages if not isinstance(message.body, CloseResponse)]


class SmlClient:
    """
    Makes the requests of one gateway to one meter.

    `client_id` names the gateway.  `server_id`, `username` and `password` go into the Open of each file and into the
    requests that need them; None where the link has one meter only [REQ.SML.CLI.RequestMeterData.20].
    """

    def __init__(
        self,
        client_id: bytes,
        *,
        server_id: bytes | None = None,
        username: bytes | None = None,
        password: bytes | None = None,
    ) -> None:
        self.client_id = client_id
        self.server_id = server_id
        self.username = username
        self.password = password
        self._files = count(1)

    def exchange(self, bodies: Sequence[Body]) -> Exchange:
        """A request file with one message per body."""
        file_id = _MARK + next(self._files).to_bytes(4, "big")
        opening = OpenRequest(None, self.client_id, file_id, self.server_id, self.username, self.password)
        messages = [
            Message(file_id + index.to_bytes(2, "big"), body, group=min(index, 0xFF))
            for index, body in enumerate((opening, *bodies, CloseRequest()))
        ]
        ids = tuple(message.transaction_id for message in messages)
        return Exchange(wrap(encode_file(messages)), file_id, ids)

    def get_list(self, list_name: bytes | None = None) -> Exchange:
        """Ask for a list of registers; None is the meter's standard list."""
        return self.exchange([GetListRequest(self.client_id, self.server_id, self.username, self.password, list_name)])

    def request_meter_data(self, registers: Iterable[Obis]) -> Exchange:
        """One GetProcParameter request per register, in one file [REQ.SML.CLI.RequestMeterData.10]."""
        return self.exchange([self._get(object_path(register_class(obis), obis)) for obis in registers])

    def discover_objects(self, listed: Iterable[Reading]) -> Exchange:
        """Ask for each object that a list named: first `get_list`, then this with its readings."""
        codes = dict.fromkeys(reading.obis for reading in listed if reading.obis is not None and reading.unit)
        return self.request_meter_data(codes)

    def read_device_info(self) -> Exchange:
        """Device class, id, firmware and hardware versions (table 9.2); what a meter lacks it answers by Attention."""
        codes = (DEVICE_CLASS, DEVICE_ID, *FIRMWARE, *HARDWARE)
        return self.exchange([self._get(object_path(CLASS_DATA, obis)) for obis in codes])

    def update_meter_key(self, certificate_and_key: bytes) -> Exchange:
        """
        Give the meter its next certificate and private key, DER, concatenated [REQ.SML.CLI.UpdateMtrCertAndKey.10]:
        first the certificate (RFC 5280), then the key (RFC 5915), as the requirement's footnote has it.

        For a TLS connection only: the frame carries the key in clear.
        """
        return self._confidential(METER_KEY_AND_CERTIFICATE, certificate_and_key)

    def update_gateway_certificate(self, certificate: bytes) -> Exchange:
        """Give the meter the gateway's next certificate, DER [REQ.SML.CLI.UpdateSmgwCert.10]."""
        return self._confidential(GATEWAY_CERTIFICATE, certificate)

    def reset_tamper_state(self, *, magnetic: bool, mechanical: bool) -> Exchange:
        """Reset the tamper states that the status word shows [REQ.SML.CLI.ResetTamperState.10, .20]."""
        states = ((magnetic, MAGNETIC_TAMPER), (mechanical, MECHANICAL_TAMPER))
        return self.exchange([self._set_value(obis, True) for shown, obis in states if shown])

    def _get(self, path: tuple[bytes, ...]) -> GetProcParameterRequest:
        return GetProcParameterRequest(self.server_id, self.username, self.password, path)

    def _set(self, path: tuple[bytes, ...], tree: Tree) -> SetProcParameterRequest:
        return SetProcParameterRequest(self.server_id, self.username, self.password, path, tree)

    def _set_value(self, obis: Obis, value: Value) -> SetProcParameterRequest:
        path = object_path(CLASS_DATA, obis, VALUE_ATTRIBUTE)
        return self._set(path, Tree(path[-1], value))

    def _confidential(self, obis: Obis, value: bytes) -> Exchange:
        return replace(self.exchange([self._set_value(obis, value)]), needs_tls=True)


def device_info(answer: Iterable[Message]) -> dict[Obis, bytes]:
    """The octets of each register in the answer to `read_device_info`; refused ones are absent."""
    out: dict[Obis, bytes] = {}
    for message in answer:
        body = message.body
        if not isinstance(body, GetProcParameterResponse):
            continue
        target = read_path(body.parameter_tree_path)
        for child in body.parameter_tree.children or ():
            if target is not None and child.name == bytes((VALUE_ATTRIBUTE,)) and isinstance(child.value, bytes):
                out[target[1]] = child.value
    return out


def attentions(messages: Sequence[Message]) -> list[AttentionResponse]:
    """The refusals and confirmations among the messages of an answer."""
    return [message.body for message in messages if isinstance(message.body, AttentionResponse)]


def refused(messages: Sequence[Message]) -> bytes | None:
    """The attention number by which a meter refuses what was to be set; None where it says OK, or answers as before."""
    return next((said.attention_no for said in attentions(messages) if said.attention_no != ATTENTION_OK), None)
