"""
Run by the peers' own interpreter, never by ours: dlms-cosem (21.3, MIT) as a client reads a meter and prints it.

Usage: dlms_peer_dlms_cosem.py JSON, with port or path, authentication, ciphered, registers as hex codes.
"""

import json
import sys

from dlms_cosem import cosem, enumerations, utils
from dlms_cosem.clients.dlms_client import DlmsClient

what = json.loads(sys.argv[1])
options = {}
if what["authentication"] == "LLS":
    options |= {"authentication_method": enumerations.AuthenticationMechanism.LLS, "password": b"12345678"}
if what["authentication"] == "HLS_GMAC":
    options |= {"authentication_method": enumerations.AuthenticationMechanism.HLS_GMAC}
if what["ciphered"]:
    options |= {
        "encryption_key": bytes(range(16)),
        "authentication_key": bytes(range(16, 32)),
        "client_system_title": b"COSEM\x00\x00\x01",
    }
if "port" in what:
    client = DlmsClient.with_tcp_transport(
        host="127.0.0.1", port=what["port"], client_logical_address=16, server_logical_address=1, **options
    )
else:
    client = DlmsClient.with_serial_hdlc_transport(
        serial_port=what["path"],
        client_logical_address=16,
        server_logical_address=1,
        server_physical_address=17,
        **options,
    )


def get(class_id, code, attribute):
    instance = cosem.Obis.from_bytes(bytes.fromhex(code))
    return client.get(cosem.CosemAttribute(enumerations.CosemInterface(class_id), instance, attribute))


client.connect()
client.associate()
values = {code: [get(3, code, 2).hex(), get(3, code, 3).hex()] for code in what["registers"]}
profile = get(7, "0100630100ff", 2)
client.release_association()  # not disconnect: this version waits for ever for a UA with an information field
print(json.dumps({"registers": values, "profile_rows": len(utils.parse_as_dlms_data(profile))}))
