"""
Run by the peers' own interpreter, never by ours: gurux-dlms as a client reads a meter and prints what it saw.

Usage: dlms_peer_gurux_client.py JSON, with port or path, hdlc, authentication, ciphered, pdu_size_max.
"""

import json
import socket
import sys

import serial
from gurux_dlms import GXByteBuffer, GXReplyData
from gurux_dlms.enums import Authentication, InterfaceType, ObjectType, Security
from gurux_dlms.objects import GXDLMSData, GXDLMSProfileGeneric
from gurux_dlms.secure import GXDLMSSecureClient

what = json.loads(sys.argv[1])
hdlc = what["hdlc"]
if "port" in what:
    connection = socket.create_connection(("127.0.0.1", what["port"]), timeout=10)
    send, receive = connection.sendall, lambda: connection.recv(65536)
else:
    line = serial.Serial(what["path"], timeout=5)
    send, receive = line.write, lambda: line.read(max(1, line.in_waiting))
client = GXDLMSSecureClient(
    True,
    16,
    1,
    Authentication[what["authentication"]],
    what["password"],
    InterfaceType.HDLC if hdlc else InterfaceType.WRAPPER,
)
client.maxReceivePDUSize = what["pdu_size_max"]
if what["ciphered"] or what["authentication"] == "HIGH_GMAC":
    client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION if what["ciphered"] else Security.NONE
    client.ciphering.systemTitle = b"GURUX\x00\x00\x01"
    client.ciphering.blockCipherKey = bytes(range(16))
    client.ciphering.authenticationKey = bytes(range(16, 32))
    client.ciphering.invocationCounter = what.get("counter", 1)


def exchange(packet, reply):
    """One frame or packet out, whole frames in."""
    if packet:
        send(bytes(packet))
    data = GXByteBuffer()
    while True:
        data.set(receive())
        reply.error = 0
        if client.getData(data, reply, None):
            break
    return reply


def ask(packets):
    reply = GXReplyData()
    for packet in packets if isinstance(packets, list) else [packets]:
        reply.clear()
        exchange(packet, reply)
        while reply.isMoreData():
            exchange(None if reply.isStreaming() else client.receiverReady(reply), reply)
    if reply.error:
        raise SystemExit(f"the meter refuses: {reply.error}")
    return reply


if hdlc:
    client.parseUAResponse(ask(client.snrmRequest()).data)
client.parseAareResponse(ask(client.aarqRequest()).data)
if client.isAuthenticationRequired:
    client.parseApplicationAssociationResponse(ask(client.getApplicationAssociationRequest()).data)
objects = client.parseObjects(ask(client.getObjectsRequest()).data, True)


def read(item, index):
    reply = ask(client.read(item, index))
    return client.updateValue(item, index, reply.value)


registers = []
for item in objects.getObjects(ObjectType.REGISTER):
    read(item, 3)
    value = read(item, 2)
    registers.append([item.logicalName, str(value), str(item.scaler), int(item.unit)])
profile = GXDLMSProfileGeneric("1.0.99.1.0.255")
read(profile, 3)
rows = read(profile, 2)
by_entry = client.updateValue(profile, 2, ask(client.readRowsByEntry(profile, 2, 3)).value)
message = GXDLMSData("0.0.96.13.0.255")
message.value = b"hello from gurux" * 40
for packet in client.write(message, 2):
    ask(packet)
clock = next(item for item in objects if item.objectType == ObjectType.CLOCK)
print(
    json.dumps(
        {
            "registers": registers,
            "rows": len(rows),
            "columns": len(profile.captureObjects),
            "by_entry": len(by_entry),
            "message": bytes(read(message, 2)).hex(),
            "clock": str(read(clock, 2)),
        }
    )
)
ask(client.releaseRequest())
if hdlc:
    ask(client.disconnectRequest(True))
