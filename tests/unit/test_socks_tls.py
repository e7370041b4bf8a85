"""SOCKS with TLS in frames, octet by octet (BSI TR-03109-1, details, chapter 11; RFC 1928)."""

from __future__ import annotations

import ssl
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.pki.han import HanRole
from protocol.socks_tls import (
    Authenticated,
    Closed,
    Data,
    Destination,
    Replied,
    Reply,
    Requested,
    SocksTlsClient,
    SocksTlsServer,
    messages,
)
from protocol.socks_tls.messages import RequestError
from tests.unit.socks_tls_pair import EMP, Pair, client_side, credentials, server_side, split

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
HANDSHAKE, OPTIONS, FLOW, CLOSING = 1, 2, 3, 4


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_system_connects_and_both_talk(version: ssl.TLSVersion, chunk: int) -> None:
    pair = Pair.made(version, chunk)
    pair.go()
    assert [type(each) for each in pair.at_server] == [Authenticated] == [type(each) for each in pair.at_client]
    pair.client.connect(EMP)
    pair.go()
    assert pair.at_server[-1] == Requested(EMP)
    assert pair.server.reply(Reply.SUCCEEDED) == []
    pair.go()
    assert pair.at_client[-1] == Replied(Reply.SUCCEEDED)
    pair.forget()
    pair.client.send(b"u" * 40_000)
    pair.server.send(b"down")
    pair.go()
    assert b"".join(each.content for each in pair.at_server if isinstance(each, Data)) == b"u" * 40_000
    assert b"".join(each.content for each in pair.at_client if isinstance(each, Data)) == b"down"


def test_greeting_and_choice_have_the_octets_of_rfc_1928() -> None:
    server = SocksTlsServer(server_side())
    assert SocksTlsClient(client_side()).take() == b"\x05\x01\x06"
    assert server.receive(b"\x05\x01\x06") == []
    assert server.take() == b"\x05\x06"


@pytest.mark.parametrize("offer", [b"\x05\x01\x00", b"\x05\x02\x00\x06", b"\x05\x01\x86", b"\x05\x00", b"\x05\x01\x02"])
def test_any_other_method_ends_the_connection(offer: bytes) -> None:
    server = SocksTlsServer(server_side())
    with pytest.raises(RemoteProtocolError, match="bad_method"):
        server.receive(offer)
    assert server.take() == b"\x05\xff"
    assert server.is_over


def test_socks_4_is_refused_at_its_first_octet() -> None:
    with pytest.raises(RemoteProtocolError, match="bad_greeting"):
        SocksTlsServer(server_side()).receive(b"\x04")


@pytest.mark.parametrize("answer", [b"\x05\x00", b"\x05\xff", b"\x05\x86", b"\x04\x06"])
def test_a_client_takes_no_other_method(answer: bytes) -> None:
    client = SocksTlsClient(client_side())
    client.take()
    with pytest.raises(RemoteProtocolError):
        client.receive(answer)
    assert client.is_over
    assert client.take() == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_each_frame_has_one_record_and_the_state_it_belongs_to(version: ssl.TLSVersion) -> None:
    pair = Pair.made(version).connected()
    pair.server.send(b"x" * 40_000)
    pair.client.close()
    pair.go()
    down = split(bytes(pair.sent["server"]))
    assert {each[0] for each in down} == {1}
    assert [each[1] for each in down] == [FLOW, FLOW, FLOW, CLOSING]
    assert [each[1] for each in split(bytes(pair.sent["client"]))] == [CLOSING]
    for _, _, record in down:
        assert len(record) == 5 + int.from_bytes(record[3:5], "big")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_handshake_is_framed_as_such(version: ssl.TLSVersion) -> None:
    pair = Pair.made(version)
    pair.go()
    assert bytes(pair.sent["client"][:3]) == b"\x05\x01\x06"
    for octets, plain in ((pair.sent["client"], 3), (pair.sent["server"], 2)):
        assert {(each[0], each[1]) for each in split(bytes(octets[plain:]))} == {(1, HANDSHAKE)}


@pytest.mark.parametrize("state", [HANDSHAKE, CLOSING])
def test_a_request_outside_of_the_data_flow_is_refused(state: int) -> None:
    pair = Pair.made()
    pair.go()
    pair.client.connect(EMP)
    framed = bytearray(pair.client.take())
    framed[1] = state
    with pytest.raises(RemoteProtocolError, match="bad_state"):
        pair.server.receive(bytes(framed))
    assert [each[1] for each in split(pair.server.take())] == [CLOSING]


def test_subauthentication_is_refused() -> None:
    pair = Pair.made()
    pair.go()
    assert pair.server.receive(bytes((1, OPTIONS, 0, 0))) == []
    with pytest.raises(RemoteProtocolError, match="subauthentication"):
        pair.server.receive(bytes((1, OPTIONS, 0, 1, 0)))


@pytest.mark.parametrize("header", [b"\x02\x01\x00\x01", b"\x01\x00\x00\x01", b"\x01\x05\x00\x01", b"\x16\x03\x01\x02"])
def test_a_frame_of_another_kind_is_refused(header: bytes) -> None:
    server = SocksTlsServer(server_side())
    server.receive(b"\x05\x01\x06")
    with pytest.raises(RemoteProtocolError, match="bad_frame"):
        server.receive(header)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_that_is_not_known_gets_an_alert(version: ssl.TLSVersion) -> None:
    known = credentials(HanRole.CLS, "1abc0099999999")
    pair = Pair(SocksTlsServer(server_side(known, version)), SocksTlsClient(client_side()))
    with pytest.raises(RemoteProtocolError, match="tls_handshake"):
        pair.go()
    alert = pair.server.take()
    assert [each[1] for each in split(alert)][-1] == CLOSING
    with pytest.raises(RemoteProtocolError, match="ALERT"):
        pair.client.receive(alert)
    assert pair.client.is_over


def test_a_client_without_a_certificate_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pair = Pair(SocksTlsServer(server_side()), SocksTlsClient(context))
    with pytest.raises(RemoteProtocolError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        pair.go()


@pytest.mark.parametrize("code", [each for each in Reply if each is not Reply.SUCCEEDED])
def test_a_refusal_is_a_reply_and_the_closing_handshake(code: Reply) -> None:
    pair = Pair.made()
    pair.go()
    pair.client.connect(EMP)
    pair.go()
    pair.server.reply(code)
    refusal = pair.server.take()
    assert [each[1] for each in split(refusal)] == [FLOW, CLOSING]
    end = 4 + len(split(refusal)[0][2])
    assert pair.client.receive(refusal[:end]) == [Replied(code)]
    closing = pair.client.take()  # before the other side has closed
    assert [each[1] for each in split(closing)] == [CLOSING]
    with pytest.raises(RemoteProtocolError, match="closed"):
        pair.client.send(b"after a refusal")
    assert pair.client.receive(refusal[end:]) == [Closed(is_clean=True)]
    assert pair.client.is_over
    assert pair.server.receive(closing) == [Closed(is_clean=True)]
    assert pair.server.is_over


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"\x05\x02\x00\x03\x01a\x00\x50", Reply.COMMAND_NOT_SUPPORTED),
        (b"\x05\x03\x00\x03\x01a\x00\x50", Reply.COMMAND_NOT_SUPPORTED),
        (b"\x05\x01\x00\x02\x01a\x00\x50", Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        (b"\x04\x01\x00\x03\x01a\x00\x50", Reply.GENERAL_FAILURE),
    ],
)
def test_anything_but_a_connect_is_answered_with_its_code(request_: bytes, code: Reply) -> None:
    pair = Pair.made()
    pair.go()
    pair.client._channel.send(request_)
    with pytest.raises(RequestError):
        pair.server.receive(pair.client.take())
    pair.client._phase = type(pair.client._phase).REQUESTED
    assert pair.client.receive(pair.server.take()) == [Replied(code), Closed(is_clean=True)]


def test_the_address_bound_is_zero_and_not_looked_at() -> None:
    assert messages.reply(Reply.SUCCEEDED) == bytes.fromhex("05000001000000000000")
    other = bytes.fromhex("0500000309") + b"localhost" + b"\x12\x34"
    assert messages.read_reply(other) == (Reply.SUCCEEDED, len(other))
    assert messages.read_reply(bytes.fromhex("05040004") + bytes(18)) == (Reply.HOST_UNREACHABLE, 22)
    with pytest.raises(RemoteProtocolError, match="bad_reply"):
        messages.read_reply(bytes.fromhex("05770001000000000000"))


@pytest.mark.parametrize(
    ("destination", "octets"),
    [
        (EMP, b"\x05\x01\x00\x03\x0bemp.example\x01\xbb"),
        (Destination(IPv4Address("10.0.0.1"), 80), b"\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50"),
        (Destination(IPv6Address("::1"), 80), b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50"),
    ],
)
def test_a_request_has_the_octets_of_rfc_1928(destination: Destination, octets: bytes) -> None:
    assert messages.request(destination) == octets
    assert messages.read_request(octets + b"rest") == (destination, len(octets))
    assert all(messages.read_request(octets[:end]) is None for end in range(len(octets)))


@pytest.mark.parametrize("name", ["a", "a" * 63, "emp-1.example", "0.-"])
def test_a_local_server_name_has_its_characters(name: str) -> None:
    assert Destination(name, 0).local_name == name


@pytest.mark.parametrize("name", ["", "a" * 64, "Emp", "emp_1", "emp example", "\xe9mp", "emp\n", "emp\0"])
def test_any_other_name_is_none(name: str) -> None:
    assert Destination(name, 0).local_name is None


@pytest.mark.parametrize("version", VERSIONS)
def test_closing_is_answered_and_late_data_dropped(version: ssl.TLSVersion) -> None:
    pair = Pair.made(version).connected()
    pair.server.close()
    pair.client.send(b"late")  # was under way
    pair.go()
    assert pair.at_server == [Closed(is_clean=True)]
    assert pair.at_client == [Closed(is_clean=True)]
    with pytest.raises(RemoteProtocolError, match="closed"):
        pair.server.send(b"later")
    with pytest.raises(RemoteProtocolError, match="closed"):
        pair.client.send(b"later")


def test_a_closing_frame_without_an_alert_closes_too() -> None:
    pair = Pair.made().connected()
    assert pair.server.receive(bytes((1, CLOSING, 0, 0))) == [Closed(is_clean=True)]
    assert [each[1] for each in split(pair.server.take())] == [CLOSING]


def test_an_end_without_a_closing_handshake_is_not_clean() -> None:
    pair = Pair.made().connected()
    assert pair.server.receive(b"") == [Closed(is_clean=False)]
    assert pair.client.receive(b"") == [Closed(is_clean=False)]
    assert pair.server.receive(b"more") == []


def test_a_changed_record_ends_the_session() -> None:
    pair = Pair.made().connected()
    pair.client.send(b"value")
    framed = bytearray(pair.client.take())
    framed[-1] ^= 1
    with pytest.raises(RemoteProtocolError, match=r"^tls: "):
        pair.server.receive(bytes(framed))
    assert [each[1] for each in split(pair.server.take())] == [CLOSING]


def test_what_comes_with_the_request_is_kept_for_after_the_reply() -> None:
    pair = Pair.made()
    pair.go()
    pair.client._channel.send(messages.request(EMP) + b"hello")
    assert pair.server.receive(pair.client.take()) == [Requested(EMP)]
    assert pair.server.reply(Reply.SUCCEEDED) == [Data(b"hello")]


def test_a_system_that_has_gone_gets_no_reply() -> None:
    pair = Pair.made()
    pair.go()
    pair.client.connect(EMP)
    pair.client.close()
    assert pair.server.receive(pair.client.take()) == [Requested(EMP), Closed(is_clean=True)]
    with pytest.raises(RemoteProtocolError, match="closed"):
        pair.server.reply(Reply.SUCCEEDED)


def test_calls_out_of_order_are_defects_of_ours() -> None:
    pair = Pair.made()
    with pytest.raises(LocalProtocolError):
        pair.client.connect(EMP)
    with pytest.raises(LocalProtocolError):
        pair.server.reply(Reply.SUCCEEDED)
    with pytest.raises(LocalProtocolError):
        pair.server.send(b"early")
    with pytest.raises(LocalProtocolError):
        pair.client.send(b"early")


_CONTEXT = server_side()


@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans())
def test_octets_of_any_kind_raise_the_remote_error_alone(parts: list[bytes], is_greeted: bool) -> None:
    server = SocksTlsServer(_CONTEXT)
    try:
        if is_greeted:
            server.receive(b"\x05\x01\x06")
        for each in parts:
            server.receive(each)
    except RemoteProtocolError:
        assert server.is_over
    assert len(server.take()) < 4_096
