"""Chapter 9's messages to the meter, as they leave the gateway: which path, which value."""

from typing import Any

from node.lmn.sml.bodies import CloseRequest, OpenRequest, SetProcParameterRequest
from node.lmn.sml.client import Exchange, SmlClient
from node.lmn.sml.decode import decode_stream
from node.lmn.sml.messages import decode_file
from node.lmn.sml.transport import Frame, TransportReader

CLASS_DATA, VALUE = b"\x00\x01", b"\x02"


def sent(exchange: Exchange) -> list[tuple[Any, Any]]:
    """The set requests of a request file, as (path, value), read back from its frame."""
    (frame,) = TransportReader().feed(exchange.frame)
    assert isinstance(frame, Frame)
    first, *bodies, last = (message.body for message in decode_file(frame.payload))
    assert isinstance(first, OpenRequest)
    assert isinstance(last, CloseRequest)
    requests = [body for body in bodies if isinstance(body, SetProcParameterRequest)]
    assert requests == bodies
    assert list(decode_stream([exchange.frame])) == []
    return [(body.parameter_tree_path, body.parameter_tree.value) for body in requests]


def test_certificates_and_key_go_to_their_addresses() -> None:
    """REQ.SML.CLI.UpdateMtrCertAndKey.10, REQ.SML.CLI.UpdateSmgwCert.10."""
    client, content = SmlClient(b"gateway"), b"\x30\x82" + bytes(900)
    key_path = (CLASS_DATA, bytes.fromhex("01005e310004"), VALUE)
    gateway_path = (CLASS_DATA, bytes.fromhex("01005e310008"), VALUE)
    assert sent(client.update_meter_key(content)) == [(key_path, content)]
    assert sent(client.update_gateway_certificate(content)) == [(gateway_path, content)]


def test_tamper_states_are_reset_at_their_addresses() -> None:
    """REQ.SML.CLI.ResetTamperState.10 and .20."""
    client = SmlClient(b"gateway")
    magnetic = (CLASS_DATA, bytes.fromhex("01005e310104"), VALUE)
    mechanical = (CLASS_DATA, bytes.fromhex("01005e310109"), VALUE)
    assert sent(client.reset_tamper_state(magnetic=True, mechanical=False)) == [(magnetic, True)]
    assert sent(client.reset_tamper_state(magnetic=False, mechanical=True)) == [(mechanical, True)]
    assert sent(client.reset_tamper_state(magnetic=True, mechanical=True)) == [(magnetic, True), (mechanical, True)]
