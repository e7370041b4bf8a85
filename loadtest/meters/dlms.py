"""
A DLMS meter: the server side of association, services, blocks and ciphering, over the TCP wrapper and HDLC.

It is the counterpart that the driver is tried against and the meter that load tests run by the hundred, so it holds
to the standard where a client could notice, and keeps to itself what a meter has and nobody asks for.  `answer` does
no I/O; the two `serve_*` functions put it on a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from loadtest.meters.dlms_objects import ASSOCIATION, OTHER_REASON, CosemObjects
from node.lmn.dlms import acse, apdu
from node.lmn.dlms.axdr import Data, Type, decode_data, octets
from node.lmn.dlms.client import DEFAULT_CONFORMANCE, Conformance
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.fields import Access, Attribute
from node.lmn.dlms.mbus_bearer import LAST_SEGMENT
from node.lmn.dlms.security import InvocationCounter, Keys, ReplayGuard, check_gmac, gmac, protect, unprotect
from node.lmn.dlms.transport import LLC_COMMAND, LLC_RESPONSE, WrapperReader, wrap
from node.lmn.hdlc.frame import Address, Frame, Kind
from node.lmn.hdlc.link import serve_secondary
from node.lmn.hdlc.secondary import SecondaryStation
from node.lmn.hdlc.station import Delivered, Disconnected, Instruction, Parameters
from node.lmn.mbus.link import ADDRESS_BROADCAST, SND_UD, LongFrame, encode_frame
from protocol.errors import RemoteProtocolError

_VAA_NAME = 7
_BLOCK_OVERHEAD = 32
_FirstBlock = apdu.SetRequestFirstBlock | apdu.SetRequestListFirstBlock | apdu.ActionRequestFirstBlock
_Items = tuple[tuple[Attribute, Access | None], ...]
_EXCEPTION_NOT_ALLOWED, _EXCEPTION_UNKNOWN = (1, 1), (2, 3)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """
    What the meter demands and offers.

    `secret` is the LLS password or the challenge that HLS sends; `general_block` prefers general block transfer to
    the services' own blocks, with `block_window` blocks in a row.
    """

    mechanism: acse.Mechanism = acse.Mechanism.NONE
    secret: bytes = field(default=b"", repr=False)
    keys: Keys | None = None
    system_title: bytes = b""
    pdu_size_max: int = 1024
    general_block: bool = False
    block_window: int = 1


class DlmsServer:
    """
    One meter: its objects, and at most one association.

    What a client does wrong is answered as a meter answers it; nothing a client sends raises.
    """

    def __init__(self, objects: CosemObjects, settings: ServerSettings | None = None) -> None:
        self.objects = objects
        self.settings = settings or ServerSettings()
        self.counter = InvocationCounter(1)
        self.guard = ReplayGuard()
        self.reset()

    def reset(self) -> None:
        """The link is gone, and with it the association."""
        self._associated = False
        self._proven = False
        self._ciphered = False
        self._client_title = b""
        self._challenge = b""
        self._conformance = 0
        self._client_pdu_size_max = 0xFFFF
        self._long_answer: list[bytes] = []
        self._long_request: tuple[_FirstBlock, bytearray] | None = None
        self._blocks_in: list[bytes] = []
        self._blocks_answer: list[bytes] = []
        self._blocks_out: list[bytes] = []
        self._blocks_sent = 0

    def answer(self, request: bytes) -> list[bytes]:
        """The APDUs that answer one."""
        try:
            return self._answer(request)
        except RemoteProtocolError:
            return [apdu.ExceptionResponse(*_EXCEPTION_UNKNOWN, b"").to_bytes()]

    def notification(self, *, sealed: bool = False) -> bytes:
        """A DataNotification of all registers, under general-glo-ciphering if `sealed`."""
        when = CosemDateTime.from_datetime(self.objects.clock())
        plain = apdu.DataNotification(1, when, self.objects.notification_rows()).to_bytes()
        keys = self.settings.keys
        if not sealed or keys is None:
            return plain
        text = protect(plain, keys, self.settings.system_title, self.counter.take())
        return apdu.GeneralGlobalCiphering(self.settings.system_title, text).to_bytes()

    def _answer(self, request: bytes) -> list[bytes]:
        if request[:1] == b"\x60":
            return [self._associate(acse.AssociationRequest.from_bytes(request)).to_bytes()]
        if request[:1] == b"\x62":
            self.reset()
            return [acse.Release(acse.RLRE).to_bytes()]
        if not self._associated:
            return [apdu.ExceptionResponse(*_EXCEPTION_NOT_ALLOWED, b"").to_bytes()]
        if request[:1] != b"\xe0":
            return self._served(request)
        block = apdu.decode_apdu(request)
        assert isinstance(block, apdu.GeneralBlock)  # noqa: S101
        if not block.content:
            self._blocks_sent = min(block.acknowledged, len(self._blocks_out))
            return self._next_blocks(block.control & 0x3F)
        if self._blocks_answer and block.block_number == len(self._blocks_in) and block.content == self._blocks_in[-1]:
            return self._blocks_answer  # it was lost, not the question
        if block.block_number == 1:
            self._blocks_in, self._blocks_answer = [], []
        if block.block_number == len(self._blocks_in) + 1:
            self._blocks_in.append(block.content)
            if block.control & 0x80:
                self._blocks_answer = self._served(b"".join(self._blocks_in))
                return self._blocks_answer
        return [apdu.GeneralBlock(0x01, 0, len(self._blocks_in), b"").to_bytes()]

    def _served(self, request: bytes) -> list[bytes]:
        message, general = self._open(request)
        response = self._serve(message)
        return self._send(response.to_bytes(), general=general)

    def _associate(self, request: acse.AssociationRequest) -> acse.AssociationResponse:
        self.reset()
        wanted = self.settings
        ciphered = request.context == acse.Context.LOGICAL_NAME_CIPHERED
        if request.context not in (acse.Context.LOGICAL_NAME, acse.Context.LOGICAL_NAME_CIPHERED):
            return acse.AssociationResponse(request.context, 1, 2)
        if request.mechanism != wanted.mechanism:
            return acse.AssociationResponse(request.context, 1, 11)
        if wanted.mechanism is acse.Mechanism.LLS and request.authentication != wanted.secret:
            return acse.AssociationResponse(request.context, 1, 13)
        if (ciphered and wanted.keys is None) or (wanted.keys is not None and len(request.system_title) != 8):
            return acse.AssociationResponse(request.context, 1, 1)
        self._client_title = request.system_title
        self._ciphered = ciphered
        information = request.user_information
        initiate, _ = self._open(information)
        if not isinstance(initiate, apdu.InitiateRequest):
            return acse.AssociationResponse(request.context, 1, 1)
        self._conformance = initiate.conformance & DEFAULT_CONFORMANCE
        if not wanted.general_block:
            self._conformance &= ~Conformance.GENERAL_BLOCK_TRANSFER
        self._client_pdu_size_max = initiate.pdu_size_max or 0xFFFF
        response = apdu.InitiateResponse(None, 6, self._conformance, wanted.pdu_size_max, _VAA_NAME)
        self._associated = True
        hls = wanted.mechanism is acse.Mechanism.HLS_GMAC
        self._proven = not hls
        self._challenge = request.authentication
        return acse.AssociationResponse(
            request.context, 0, 14 if hls else 0, request.mechanism, wanted.system_title,
            wanted.secret if hls else b"", self._seal(response.to_bytes(), general=False),
        )  # fmt: skip

    def _serve(self, message: apdu.Apdu) -> apdu.Apdu:
        if isinstance(message, apdu.ActionRequest) and message.method.obis == ASSOCIATION:
            return self._prove(message)
        if not self._proven:
            return apdu.ExceptionResponse(*_EXCEPTION_NOT_ALLOWED, b"")
        match message:
            case apdu.GetRequest():
                return self._get(message)
            case apdu.GetRequestNext():
                return self._get_next(message)
            case apdu.GetRequestList():
                results = tuple(self.objects.get(attribute, access) for attribute, access in message.items)
                whole = apdu.GetResponseList(message.invoke, results)
                return self._in_blocks(whole, apdu.results_to_bytes(results))
            case apdu.SetRequest():
                return apdu.SetResponse(message.invoke, self.objects.set(message.attribute, message.data))
            case apdu.SetRequestList():
                return apdu.SetResponseList(message.invoke, self._set_all(message.items, message.values))
            case apdu.SetRequestFirstBlock() | apdu.SetRequestListFirstBlock() | apdu.ActionRequestFirstBlock():
                self._long_request = message, bytearray()
                return self._request_block(message)
            case apdu.SetRequestBlock() | apdu.ActionRequestBlock():
                return self._request_block(message)
            case apdu.ActionRequest():
                result, returned = self.objects.action(message.method, message.parameters)
                return apdu.ActionResponse(message.invoke, result, returned)
        return apdu.ExceptionResponse(*_EXCEPTION_UNKNOWN, b"")

    def _prove(self, message: apdu.ActionRequest) -> apdu.Apdu:
        keys, proof = self.settings.keys, message.parameters
        if keys is None or proof is None or proof.type is not Type.OCTET_STRING:
            return apdu.ActionResponse(message.invoke, OTHER_REASON, None)
        try:
            check_gmac(proof.value, self.settings.secret, keys, self._client_title)
        except RemoteProtocolError:
            return apdu.ActionResponse(message.invoke, OTHER_REASON, None)
        self._proven = True
        own = gmac(self._challenge, keys, self.settings.system_title, self.counter.take())
        return apdu.ActionResponse(message.invoke, apdu.SUCCESS, octets(own))

    def _get(self, message: apdu.GetRequest) -> apdu.Apdu:
        result = self.objects.get(message.attribute, message.access)
        encoded = result.to_bytes() if isinstance(result, Data) else b""
        return self._in_blocks(apdu.GetResponse(message.invoke, result), encoded)

    def _in_blocks(self, whole: apdu.GetResponse | apdu.GetResponseList, encoded: bytes) -> apdu.Apdu:
        size = self._answer_size_max() - _BLOCK_OVERHEAD
        if len(encoded) <= size or self._conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            return whole
        self._long_answer = [encoded[start : start + size] for start in range(0, len(encoded), size)]
        return self._get_next(apdu.GetRequestNext(whole.invoke, 0))

    def _get_next(self, message: apdu.GetRequestNext) -> apdu.Apdu:
        number = message.block_number + 1
        if not 1 <= number <= len(self._long_answer):
            return apdu.GetResponseBlock(message.invoke, True, number, 19)
        last = number == len(self._long_answer)
        return apdu.GetResponseBlock(message.invoke, last, number, self._long_answer[number - 1])

    def _set_all(self, items: _Items, values: tuple[Data, ...]) -> tuple[int, ...]:
        if len(items) != len(values):
            return (OTHER_REASON,) * len(items)
        return tuple(self.objects.set(item[0], value) for item, value in zip(items, values, strict=True))

    def _request_block(self, message: _FirstBlock | apdu.SetRequestBlock | apdu.ActionRequestBlock) -> apdu.Apdu:
        if self._long_request is None:
            return apdu.SetResponse(message.invoke, 18)
        first, raw = self._long_request
        raw += message.raw
        if not message.last:
            is_action = isinstance(first, apdu.ActionRequestFirstBlock)
            response = apdu.ActionResponseNextBlock if is_action else apdu.SetResponseBlock
            return response(message.invoke, message.block_number)
        self._long_request = None
        match first:
            case apdu.SetRequestFirstBlock():
                result = self.objects.set(first.attribute, decode_data(bytes(raw)))
                return apdu.SetResponseLastBlock(message.invoke, result, message.block_number)
            case apdu.SetRequestListFirstBlock():
                results = self._set_all(first.items, apdu.values_from_bytes(bytes(raw)))
                return apdu.SetResponseListLastBlock(message.invoke, results, message.block_number)
        result, returned = self.objects.action(first.method, decode_data(bytes(raw)))
        return apdu.ActionResponse(message.invoke, result, returned)

    def _answer_size_max(self) -> int:
        return min(self._client_pdu_size_max, self.settings.pdu_size_max)

    def _send(self, plain: bytes, *, general: bool) -> list[bytes]:
        answer = self._seal(plain, general=general)
        size = self._answer_size_max()
        if len(answer) <= size or not self._conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            return [answer]
        size -= _BLOCK_OVERHEAD
        self._blocks_out = [answer[start : start + size] for start in range(0, len(answer), size)]
        self._blocks_sent = 0
        return self._next_blocks(1)

    def _next_blocks(self, window: int) -> list[bytes]:
        """As many blocks as the client grants, from the first that it has not acknowledged."""
        out = []
        window = min(max(window, 1), self.settings.block_window)
        for index in range(window):
            if self._blocks_sent == len(self._blocks_out):
                break
            content = self._blocks_out[self._blocks_sent]
            self._blocks_sent += 1
            last = self._blocks_sent == len(self._blocks_out)
            streaming = not last and index < window - 1
            control = 0x80 * last | 0x40 * streaming | 1
            out.append(apdu.GeneralBlock(control, self._blocks_sent, len(self._blocks_in), content).to_bytes())
        return out

    def _open(self, request: bytes) -> tuple[apdu.Apdu, bool]:
        keys = self.settings.keys
        if not self._ciphered or keys is None:
            return apdu.decode_apdu(request), False
        outer = apdu.decode_apdu(request)
        if not isinstance(outer, apdu.GeneralGlobalCiphering | apdu.Ciphered):
            raise RemoteProtocolError("dlms_unprotected", "plain in a ciphered association")
        plain, counter, _ = unprotect(outer.protected, keys, self._client_title)
        self.guard.check(self._client_title, counter)
        self.guard.accept(self._client_title, counter)
        return apdu.decode_apdu(plain), isinstance(outer, apdu.GeneralGlobalCiphering)

    def _seal(self, plain: bytes, *, general: bool) -> bytes:
        keys = self.settings.keys
        if not self._ciphered or keys is None:
            return plain
        text = protect(plain, keys, self.settings.system_title, self.counter.take())
        if general:
            return apdu.GeneralGlobalCiphering(self.settings.system_title, text).to_bytes()
        tag = apdu.GLOBAL_TAGS.get(plain[0])
        return plain if tag is None else apdu.Ciphered(tag, text).to_bytes()


async def serve_wrapper(server: DlmsServer, stream: trio.abc.Stream) -> None:
    """One TCP client, until it leaves; a packet that is none closes the connection."""
    reader = WrapperReader()
    server.reset()
    while data := await stream.receive_some():
        for item in reader.feed(bytes(data)):
            if isinstance(item, RemoteProtocolError):
                await stream.aclose()
                return
            source, destination, packet = item
            for answer in server.answer(packet):
                await stream.send_all(wrap(destination, source, answer))
    await stream.aclose()


async def serve_hdlc(
    server: DlmsServer, stream: trio.abc.Stream, address: Address, capabilities: Parameters | None = None
) -> None:
    """A meter on a serial bus or an HDLC-over-TCP connection, until the line closes."""
    station = SecondaryStation(address, capabilities)
    await serve_secondary(stream, station, partial(respond_hdlc, server, station))


def respond_hdlc(server: DlmsServer, station: SecondaryStation, instruction: Instruction) -> None:
    """What the meter does where its HDLC station was connected, disconnected or given a packet."""
    if isinstance(instruction, Disconnected):
        server.reset()
    if isinstance(instruction, Delivered) and instruction.data.startswith(LLC_COMMAND):
        for answer in server.answer(instruction.data[3:]):
            station.send(LLC_RESPONSE + answer)


def push_frames(message: bytes, source: Address, destination: Address, size_max: int = 512) -> bytes:
    """One pushed APDU as UI frames, segmented to `size_max` bytes of information."""
    packet = LLC_RESPONSE + message
    frames = []
    for start in range(0, len(packet), size_max):
        part = packet[start : start + size_max]
        more = start + size_max < len(packet)
        frame = Frame(destination, source, Kind.UNNUMBERED_INFORMATION, True, part, segmented=more)
        frames.append(frame.to_bytes())
    return b"".join(frames)


def push_mbus_frames(message: bytes, source: int = 1, destination: int = 0x67, size_max: int = 245) -> bytes:
    """One pushed APDU (4,000 bytes at most) as an Austrian meter sends it: M-Bus frames of `size_max` bytes of it."""
    frames = []
    for number, start in enumerate(range(0, len(message), size_max)):
        last = LAST_SEGMENT if start + size_max >= len(message) else 0
        data = bytes((source, destination)) + message[start : start + size_max]
        frames.append(encode_frame(LongFrame(SND_UD, ADDRESS_BROADCAST, number | last, data)))
    return b"".join(frames)


async def serve_tcp(make: Callable[[], DlmsServer], listeners: list[trio.SocketListener]) -> None:
    """A meter for every TCP client (wrapper), until cancelled."""

    async def serve(stream: trio.SocketStream) -> None:
        await serve_wrapper(make(), stream)

    await trio.serve_listeners(serve, listeners)
