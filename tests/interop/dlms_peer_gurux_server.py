"""
Run by the peers' own interpreter, never by ours: gurux-dlms as a meter on TCP, for our client to read.

Usage: dlms_peer_gurux_server.py JSON, with hdlc, authentication, password, ciphered, pdu_size_max; prints its port,
then what was written to it once the client has left.

The dispatcher of gurux-dlms 1.0.203's server (GXDLMSServer.handleRequest, GXDLMSLNCommandHandler) was translated from
Java and never run: it calls methods that its own classes do not have, and takes int() of byte strings.  `serve` stands
in for it and does no more than call the library: its parser and its ciphers for what comes in, its association for
AARQ and AARE, its challenges for HLS, its objects and their selective access for the values, its response writer with
its blocks and ciphers for what goes out.
"""

import json
import socket
import sys
from datetime import datetime, timedelta

from gurux_dlms import GXByteBuffer, GXDateTime
from gurux_dlms.AesGcmParameter import AesGcmParameter
from gurux_dlms.ConnectionState import ConnectionState
from gurux_dlms.enums import (
    Authentication,
    Command,
    DataType,
    ErrorCode,
    InterfaceType,
    ObjectType,
    Security,
    SourceDiagnostic,
    Unit,
)
from gurux_dlms.GXCiphering import GXCiphering
from gurux_dlms.GXDLMS import GXDLMS
from gurux_dlms.GXDLMSLNParameters import GXDLMSLNParameters
from gurux_dlms.GXReplyData import GXReplyData
from gurux_dlms.GXSecure import GXSecure
from gurux_dlms.internal._GXCommon import _GXCommon
from gurux_dlms.internal._GXDataInfo import _GXDataInfo
from gurux_dlms.objects import (
    GXDLMSAssociationLogicalName,
    GXDLMSCaptureObject,
    GXDLMSClock,
    GXDLMSData,
    GXDLMSProfileGeneric,
    GXDLMSRegister,
)
from gurux_dlms.secure import GXDLMSSecureServer
from gurux_dlms.ValueEventArgs import ValueEventArgs

what = json.loads(sys.argv[1])


class Meter(GXDLMSSecureServer):
    """The library's server; it asks its heir for these."""

    def isTarget(self, serverAddress, clientAddress):
        return True

    def onValidateAuthentication(self, authentication, password):
        if authentication == Authentication.LOW and bytes(password) != what["password"].encode():
            return SourceDiagnostic.AUTHENTICATION_FAILURE
        right = authentication == Authentication[what["authentication"]]
        return SourceDiagnostic.NONE if right else SourceDiagnostic.AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED

    def onInvalidConnection(self, connectionInfo):
        pass

    def onGetAttributeAccess(self, arg):
        return 3

    def onGetMethodAccess(self, arg):
        return 1


meter = Meter(True, InterfaceType.HDLC if what["hdlc"] else InterfaceType.WRAPPER)
settings = meter.settings
settings.maxServerPDUSize = settings.maxPduSize = what["pdu_size_max"]
if what["ciphered"] or what["authentication"] == "HIGH_GMAC":
    settings.cipher = GXCiphering(b"GRX\x00\x00\x00\x00\x07")
    settings.cipher.security = Security.AUTHENTICATION_ENCRYPTION if what["ciphered"] else Security.NONE
    settings.cipher.blockCipherKey = bytes(range(16))
    settings.cipher.authenticationKey = bytes(range(16, 32))
    settings.cipher.invocationCounter = 1

clock = GXDLMSClock("0.0.1.0.0.255")
energy = GXDLMSRegister("1.0.1.8.0.255")
energy.value, energy.scaler, energy.unit = 123_456_789, 0.1, Unit.ACTIVE_ENERGY
energy.setDataType(2, DataType.UINT32)
power = GXDLMSRegister("1.0.16.7.0.255")
power.value, power.scaler, power.unit = -250, 1, Unit.ACTIVE_POWER
power.setDataType(2, DataType.INT32)
message = GXDLMSData("0.0.96.13.0.255")
message.value = bytearray(b"x" * 700)
message.setDataType(2, DataType.OCTET_STRING)
profile = GXDLMSProfileGeneric("1.0.99.1.0.255")
profile.capturePeriod = 900
profile.sortObject = clock
profile.captureObjects.append((clock, GXDLMSCaptureObject(2, 0)))
profile.captureObjects.append((energy, GXDLMSCaptureObject(2, 0)))
begin = datetime(2026, 6, 1, 12)
for row in range(60):
    profile.buffer.append([GXDateTime(begin + timedelta(minutes=15 * row)), 1000 + row])
profile.entriesInUse = profile.profileEntries = 60
association = GXDLMSAssociationLogicalName("0.0.40.0.0.255")
for item in (association, clock, energy, power, message, profile):
    meter.items.append(item)
    association.objectList.append(item)
clock.time = GXDateTime(begin)
written, called = [], []


class Reply(GXByteBuffer):
    """generateAARE leaves out the length of the system title, and counts two tags too short (mended in `answer`)."""

    def setUInt8(self, item=8, index=None):
        super().setUInt8(item, index)


meter.replyData = Reply()


class Asked(ValueEventArgs):
    """A request for one attribute; the association looks for a name that the library's own class does not have."""

    isSkipMaxPduSize = True


def open_request(_settings, info):
    """GXDLMS.handleGloDedRequest leaves out the first argument of AesGcmParameter."""
    cipher = settings.cipher
    info.data.position = info.data.position - 1
    if info.isMoreData():
        return  # the rest comes in further frames
    right = AesGcmParameter(0, settings.sourceSystemTitle, cipher.blockCipherKey, cipher.authenticationKey)
    plain = GXCiphering.decrypt(settings, right, info.data)
    info.data.clear()
    info.data.set(plain)
    info.command = Command(info.data.getUInt8())


GXDLMS.handleGloDedRequest = open_request
GXReplyData.getCipherIndex = lambda self: self.cipherIndex  # the library calls a method that it does not have


def find(data):
    """The object and attribute that a request begins with."""
    kind = ObjectType(data.getUInt16())
    name = bytearray(6)
    data.get(name)
    return meter.items.findByLN(kind, _GXCommon.toLogicalName(name)), data.getUInt8()


def value_of(data):
    return _GXCommon.getData(settings, data, _GXDataInfo())


def selected(selector, parameters):
    """Rows of the profile: the library's own selection by range compares times with 0."""
    if selector == 2:
        return profile.buffer[parameters[0] - 1 : parameters[1] or None]
    info = _GXDataInfo()
    info.type_ = DataType.DATETIME
    limits = []
    for text in parameters[1:3]:
        info.clear()
        info.type_ = DataType.DATETIME
        limits.append(_GXCommon.getData(settings, GXByteBuffer(text), info).value.replace(tzinfo=None))
    return [row for row in profile.buffer if limits[0] <= row[0].value.replace(tzinfo=None) <= limits[1]]


def attribute(data):
    """The encoded value of an attribute, or an error."""
    item, index = find(data)
    out = GXByteBuffer()
    selector, parameters = 0, None
    if data.getUInt8():
        selector = data.getUInt8()
        parameters = value_of(data)
    if item is None:
        return ErrorCode.UNDEFINED_OBJECT, out
    asked = Asked(settings, item, index, selector, parameters)
    asked.server = meter
    settings.setIndex(0)
    if selector:
        value = profile.getData(settings, asked, selected(selector, parameters), None)
        asked.byteArray = True
    else:
        value = item.getValue(settings, asked)
    settings.setIndex(0)
    settings.setCount(0)
    if asked.byteArray or isinstance(value, GXByteBuffer):
        out.set(value)
    else:
        GXDLMS.appendData(settings, item, index, out, value)
    return ErrorCode.OK, out


def respond(command, kind, invoke, data=None, status=ErrorCode.OK, *, further=False):
    """A response as the library writes it: in blocks where it must be, ciphered where the association is."""
    parameters = GXDLMSLNParameters(settings, invoke, command, kind, None, data, status)
    if further:
        parameters.multipleBlocks = True
    reply = GXByteBuffer()
    GXDLMS.getLNPdu(parameters, reply)
    return reply


long = {}  # under way: a get's answer, a set's target and value


def serve_get(data):
    kind, invoke = data.getUInt8(), data.getUInt8()
    settings.updateInvokeId(invoke)
    if kind == 2:
        if data.getUInt32() != settings.blockIndex:
            return respond(Command.GET_RESPONSE, 2, invoke, None, ErrorCode.DATA_BLOCK_NUMBER_INVALID)
        settings.increaseBlockIndex()
        return respond(Command.GET_RESPONSE, 2, invoke, long["get"], further=True)
    settings.resetBlockIndex()
    if kind == 3:
        long["get"] = GXByteBuffer()
        count = _GXCommon.getObjectCount(data)
        _GXCommon.setObjectCount(count, long["get"])
        for _ in range(count):
            status, encoded = attribute(data)
            long["get"].setUInt8(1 if status else 0)
            long["get"].set(encoded) if not status else long["get"].setUInt8(status)
        # 0xFF: no status before the list
        return respond(Command.GET_RESPONSE, 3, invoke, long["get"], 0xFF)
    status, long["get"] = attribute(data)
    return respond(Command.GET_RESPONSE, 1, invoke, long["get"], status)


def serve_set(data):
    kind, invoke = data.getUInt8(), data.getUInt8()
    settings.updateInvokeId(invoke)
    last, number = True, 0
    if kind in (1, 2):
        long["target"] = find(data)
        data.getUInt8()
        long["set"] = GXByteBuffer()
    if kind in (2, 3):
        last, number = data.getUInt8() != 0, data.getUInt32()
        _GXCommon.getObjectCount(data)
    long["set"].set(data)
    if last:
        asked = Asked(settings, *long["target"], 0, None)
        asked.value = value_of(long["set"])
        long["target"][0].setValue(settings, asked)
        written.append([long["target"][0].logicalName, bytes(asked.value).hex()])
    if kind == 1:
        return respond(Command.SET_RESPONSE, 1, invoke)
    settings.setBlockIndex(number)
    # The library leaves the kind of an answer in blocks to its caller: 2 is "go on", 3 the result of the whole.
    return respond(Command.SET_RESPONSE, 3 if last else 2, invoke, None, ErrorCode.OK if last else 0xFF, further=True)


def serve_action(data):
    data.getUInt8()
    invoke = data.getUInt8()
    settings.updateInvokeId(invoke)
    item, index = find(data)
    parameters = value_of(data) if data.getUInt8() else None
    out = GXByteBuffer()
    if item is association:
        proof = GXByteBuffer(parameters)
        proof.getUInt8()
        count = proof.getUInt32()
        cipher = settings.cipher
        right = GXSecure.secure(settings, cipher, count, settings.stoCChallenge, settings.sourceSystemTitle)
        if bytes(right) != bytes(parameters):
            return respond(Command.METHOD_RESPONSE, 1, invoke, None, ErrorCode.READ_WRITE_DENIED)
        settings.connected |= ConnectionState.DLMS
        own = GXSecure.secure(settings, cipher, cipher.invocationCounter, settings.ctoSChallenge, cipher.systemTitle)
        out.setUInt8(1)
        out.setUInt8(0)
        _GXCommon.setData(settings, out, DataType.OCTET_STRING, own)
    else:
        called.append([item.logicalName, index])
        out.setUInt8(0)
    return respond(Command.METHOD_RESPONSE, 1, invoke, out)


def answer(info):
    meter.replyData.clear()
    if info.command == Command.AARQ:
        meter.handleAarqRequest(info.data, None)
        accepted = bytes(meter.replyData.array())
        for tag, size in ((b"\xa4", 8), (b"\xaa", len(settings.stoCChallenge or b""))):
            inner = (b"\x04" if size == 8 and tag == b"\xa4" else b"\x80") + bytes([size])
            accepted = accepted.replace(tag + bytes([size]) + inner, tag + bytes([size + 2]) + inner, 1)
        meter.replyData.clear()
        meter.replyData.set(accepted)
        if settings.cipher:
            settings.cipher.invocationCounter += 1  # the library would use the counter of its AARE again
        return meter.replyData
    if info.command == Command.RELEASE_REQUEST:
        meter.handleReleaseRequest(info.data)
        return meter.replyData
    serve = {Command.GET_REQUEST: serve_get, Command.SET_REQUEST: serve_set, Command.METHOD_REQUEST: serve_action}
    return serve[info.command](info.data)


def wrapped(info):
    return bytes(GXDLMS.getWrapperFrame(settings, info.command, answer(info)))


def frame(control, data=None):
    return bytes(GXDLMS.getHdlcFrame(settings, control, data))


segments, pending = bytearray(), GXByteBuffer()  # of a request that is under way, of an answer


def in_hdlc(info):
    """The next frame: windows of one, see docs/reference/lmn.md."""
    if info.command == Command.SNRM:
        settings.hdlc.maxInfoTX = settings.hdlc.maxInfoRX = 128
        GXDLMS.parseSnrmUaResponse(info.data, settings.hdlc)
        agreed = GXByteBuffer()
        for octet in bytes.fromhex("818012050180060180070400000001080400000001"):
            agreed.setUInt8(octet)
        settings.connected = ConnectionState.HDLC
        return frame(Command.UA, agreed)
    if info.command == Command.DISCONNECT_REQUEST:
        return frame(Command.UA)
    if info.isMoreData():
        return frame(settings.getReceiverReady())
    if info.command != Command.NONE:
        pending.clear()
        pending.set(answer(info))
        return frame(0, pending)
    return frame(settings.getNextSend(False), pending)


listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
connection, _ = listener.accept()
received, info = GXByteBuffer(), GXReplyData()
while piece := connection.recv(65536):
    received.set(piece)
    GXDLMS.getData(settings, received, info, None)
    if not info.complete:
        continue
    received.clear()
    connection.sendall(in_hdlc(info) if what["hdlc"] else wrapped(info))
    if not info.isMoreData():
        info = GXReplyData()
print(json.dumps({"written": written, "called": called}))
