"""
Run by the peers' own interpreter, never by ours: gurux-dlms as a meter on a TCP port, which it prints.

Usage: dlms_peer_gurux_server.py JSON, with hdlc, authentication, ciphered.
"""

# ruff: noqa: ARG002, N802, N803, N815
import json
import socket
import sys

from gurux_dlms import GXServerReply
from gurux_dlms.enums import AccessMode, Authentication, InterfaceType, MethodAccessMode, SourceDiagnostic
from gurux_dlms.objects import (
    GXDLMSAssociationLogicalName,
    GXDLMSCaptureObject,
    GXDLMSClock,
    GXDLMSData,
    GXDLMSProfileGeneric,
    GXDLMSRegister,
)
from gurux_dlms.secure import GXDLMSSecureServer

what = json.loads(sys.argv[1])


class Meter(GXDLMSSecureServer):
    def isTarget(self, serverAddress, clientAddress):
        return True

    def onValidateAuthentication(self, authentication, password):
        if authentication != Authentication[what["authentication"]]:
            return SourceDiagnostic.AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED
        if authentication == Authentication.LOW and bytes(password) != b"12345678":
            return SourceDiagnostic.AUTHENTICATION_FAILURE
        return SourceDiagnostic.NONE

    def onGetAttributeAccess(self, arg):
        return AccessMode.READ_WRITE

    def onGetMethodAccess(self, arg):
        return MethodAccessMode.ACCESS

    def onFindObject(self, objectType, sn, ln):
        return None

    def nothing(self, *_):
        return None

    onPreGet = onPostGet = onPreRead = onPostRead = onPreWrite = onPostWrite = nothing
    onConnected = onInvalidConnection = onDisconnected = onPreAction = onPostAction = nothing


association = GXDLMSAssociationLogicalName("0.0.40.0.0.255")
meter = Meter(association, InterfaceType.HDLC if what["hdlc"] else InterfaceType.WRAPPER)
meter.getCiphering().systemTitle = b"GURUX\x00\x00\x02"
meter.getCiphering().blockCipherKey = bytes(range(16))
meter.getCiphering().authenticationKey = bytes(range(16, 32))
energy = GXDLMSRegister("1.0.1.8.0.255")
energy.value, energy.scaler, energy.unit = 123456789, 0.1, 30
power = GXDLMSRegister("1.0.16.7.0.255")
power.value, power.scaler, power.unit = -250, 1, 27
clock = GXDLMSClock("0.0.1.0.0.255")
text = GXDLMSData("0.0.96.13.0.255")
text.value = b"quiet"
profile = GXDLMSProfileGeneric("1.0.99.1.0.255")
profile.captureObjects = [(energy, GXDLMSCaptureObject(2, 0)), (power, GXDLMSCaptureObject(2, 0))]
profile.buffer = [[n, -n] for n in range(200)]
profile.profileEntries = 200
for item in (association, energy, power, clock, text, profile):
    meter.items.append(item)
    association.objectList.append(item)
meter.initialize()
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    meter.reset(False)
    with connection:
        while data := connection.recv(65536):
            reply = GXServerReply(data)
            while True:
                meter.handleRequest(reply)
                if reply.reply:
                    connection.sendall(bytes(reply.reply))
                    reply.data = None
                if not reply.isStreaming():
                    break
