"""
Run by the peers' own interpreter, never by ours: gurux-dlms as a client takes a push off a wired M-Bus.

Usage: dlms_peer_gurux_push.py JSON, with frames, encryption and authentication in hexadecimal; prints the rows.

The library leaves its buffer at the end of the user data, before check sum and stop octet of the frame.
"""

import json
import sys

from gurux_dlms import GXByteBuffer, GXReplyData
from gurux_dlms.enums import Authentication, InterfaceType, Security
from gurux_dlms.secure import GXDLMSSecureClient

FRAME_COUNT_MAX, TAIL_SIZE = 16, 2
what = json.loads(sys.argv[1])
client = GXDLMSSecureClient(True, 16, 1, Authentication.NONE, None, InterfaceType.WIRED_MBUS)
client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
client.ciphering.systemTitle = b"GURUX\x00\x00\x01"
client.ciphering.blockCipherKey = bytes.fromhex(what["encryption"])
client.ciphering.authenticationKey = bytes.fromhex(what["authentication"])
frames, reply = GXByteBuffer(bytes.fromhex(what["frames"])), GXReplyData()
count = 1
client.getData(frames, reply, None)
while reply.isMoreData() and count < FRAME_COUNT_MAX:
    frames.position = frames.position + TAIL_SIZE
    client.getData(frames, reply, None)
    count += 1
rows = [[item.hex() if isinstance(item, (bytes, bytearray)) else item for item in row] for row in reply.value]
print(json.dumps({"frames": count, "rows": rows}))
