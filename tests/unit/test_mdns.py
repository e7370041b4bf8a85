"""Multicast DNS of the gateway: octets, probing, answers, defence and bounds (RFC 6762; chapter 12), no sockets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.mdns.messages import (
    AAAA,
    ANY,
    NSEC,
    PTR,
    SRV,
    TXT,
    A,
    Message,
    Question,
    Record,
    lower,
    name_of,
    packed,
    read_message,
    with_ttl,
)
from protocol.mdns.records import Service, records_of
from protocol.mdns.responder import PORT, Budget, Outgoing, Responder, State

HOST = name_of("estk0100000001.local")
SMGW = name_of("smgw.local")
V4, V6 = ip_address("192.168.1.200"), ip_address("fe80::1")
RECORDS = records_of("ESTK0100000001", [Service("_https._tcp", 443, (("path", "/"),))], [V4, V6])
ASKER = ("192.168.1.7", PORT)


def heard(out: list[Outgoing]) -> list[Message]:
    return [read_message(each.content) for each in out]


def running(records: list[Record] = RECORDS, budget: Budget | None = None) -> tuple[Responder, float]:
    responder, now_s = Responder(records, Random(1).uniform, budget or Budget(), 0.0), 0.0
    while responder.state is not State.RUNNING:
        now_s = responder.next_s
        responder.advance(now_s)
    return responder, now_s + 2


def query(name: tuple[bytes, ...], kind: int, *, unicast: bool = False, **more: object) -> Message:
    return Message(questions=(Question(name, kind, unicast),), **more)  # type: ignore[arg-type]


def answers(responder: Responder, asked: Message, now_s: float, source: tuple[str, int] = ASKER) -> list[Message]:
    out = responder.receive(asked, source, now_s)
    while responder.next_s < now_s + 1:
        out += responder.advance(responder.next_s)
    return heard(out)


def test_it_asks_three_times_before_it_announces_twice() -> None:
    responder = Responder(RECORDS, Random(1).uniform, Budget(), 100.0)
    times, messages = [], []
    while responder.next_s < 200:
        times.append(responder.next_s)
        messages += heard(responder.advance(responder.next_s))
    assert 100 <= times[0] <= 100.25
    assert [round(after - before, 3) for before, after in pairwise(times)] == [
        0.25,
        0.25,
        0.25,
        1.0,
    ]
    probes, announcements = messages[:3], messages[3:]
    for each in probes:
        assert not each.is_response
        assert {(lower(q.name), q.type, q.is_unicast) for q in each.questions} >= {(HOST, ANY, True)}
        assert {r.data for r in each.authorities if lower(r.name) == HOST} == {V4.packed, V6.packed}
        assert SMGW not in {lower(q.name) for q in each.questions}  # shared: others may have it too
    for each in announcements:
        assert each.is_response
        flags = {lower(r.name): r.is_unique for r in each.answers}
        assert (flags[HOST], flags[SMGW]) == (True, False)
    assert responder.state is State.RUNNING


def test_a_name_that_somebody_has_is_left_alone() -> None:
    responder = Responder(RECORDS, Random(1).uniform, Budget(), 0.0)
    responder.advance(responder.next_s)
    other = Record((b"ESTK0100000001", b"LOCAL"), A, ip_address("192.168.1.9").packed, 120, is_unique=True)
    responder.receive(Message(is_response=True, answers=(other,)), ("192.168.1.9", PORT), 0.4)
    assert responder.state is State.CONFLICT
    assert responder.next_s == float("inf")
    assert responder.advance(10) == []
    assert responder.receive(query(HOST, A), ASKER, 11) == []
    assert responder.goodbye(12) == []


def test_the_same_records_and_own_addresses_are_no_conflict() -> None:
    other_interface = ip_address("10.0.0.1").packed
    responder = Responder(RECORDS, Random(1).uniform, Budget(), 0.0, {V4.packed, other_interface})
    own = [each for each in RECORDS if each.is_unique]
    elsewhere = Record(HOST, A, other_interface, 120, is_unique=True)
    responder.receive(Message(is_response=True, answers=(*own, elsewhere)), ASKER, 0.1)
    assert responder.state is State.PROBING


def test_of_two_that_probe_at_once_the_later_data_wins() -> None:
    for theirs, is_lost in ((ip_address("192.168.1.201"), True), (ip_address("192.168.1.199"), False)):
        responder = Responder(RECORDS, Random(1).uniform, Budget(), 0.0)
        responder.advance(responder.next_s)
        probe = query(HOST, ANY, authorities=(Record(HOST, A, theirs.packed, 120), Record(HOST, AAAA, V6.packed, 120)))
        responder.receive(probe, ("192.168.1.201", PORT), 0.3)
        assert (responder.next_s == 1.3) is is_lost


def test_a_conflict_later_has_the_names_probed_anew() -> None:
    responder, now_s = running()
    other = Record(HOST, A, ip_address("192.168.1.9").packed, 120, is_unique=True)
    responder.receive(Message(is_response=True, answers=(other,)), ("192.168.1.9", PORT), now_s)
    assert responder.state is State.PROBING
    assert not heard(responder.advance(now_s))[0].is_response


def test_a_probe_for_its_names_is_answered_at_once() -> None:
    responder, now_s = running()
    probe = query(HOST, ANY, unicast=True, authorities=(Record(HOST, A, b"\x0a\0\0\1", 120),))
    assert responder.receive(probe, ASKER, now_s) == []
    (defence,) = heard(responder.advance(now_s))
    assert {each.data for each in defence.answers} == {V4.packed, V6.packed}


def test_names_lead_to_the_addresses_of_the_interface() -> None:
    responder, now_s = running()
    (answer,) = answers(responder, query((b"Estk0100000001", b"Local"), A), now_s)
    assert [(each.data, each.is_unique, each.ttl_s) for each in answer.answers] == [(V4.packed, True, 120)]
    assert [each.data for each in answer.additionals] == [V6.packed]
    (answer,) = answers(responder, query(SMGW, AAAA), now_s + 5)
    assert [(each.data, each.is_unique) for each in answer.answers] == [(V6.packed, False)]
    (answer,) = answers(responder, query(name_of("200.1.168.192.in-addr.arpa"), PTR), now_s + 10)
    assert [each.data for each in answer.answers] == [packed(HOST)]
    assert answers(responder, query(name_of("other.local"), A), now_s + 15) == []


def test_services_are_found_with_place_text_and_address() -> None:
    responder, now_s = running()
    (answer,) = answers(responder, query(name_of("_services._dns-sd._udp.local"), PTR), now_s)
    assert [each.data for each in answer.answers] == [packed(name_of("_https._tcp.local"))]
    (answer,) = answers(responder, query(name_of("_https._tcp.local"), PTR), now_s + 5)
    (instance,) = answer.answers
    assert instance.data == packed((b"SMGW ESTK0100000001", *name_of("_https._tcp.local")))
    found = {each.type: each.data for each in answer.additionals}
    assert found[SRV] == bytes(4) + (443).to_bytes(2, "big") + packed(HOST)
    assert found[TXT] == b"\x06path=/"
    assert (found[A], found[AAAA]) == (V4.packed, V6.packed)


def test_a_type_that_a_unique_name_has_not_is_denied() -> None:
    responder, now_s = running()
    (answer,) = answers(responder, query(HOST, TXT), now_s)
    (denial,) = answer.answers
    assert denial.type == NSEC
    assert denial.data == packed(HOST) + bytes((0, 4, 0x40, 0, 0, 0x08))  # A and AAAA


def test_shared_names_wait_a_moment_and_unique_ones_do_not() -> None:
    responder, now_s = running()
    responder.receive(query(HOST, A), ASKER, now_s)
    assert responder.next_s == now_s
    responder.advance(now_s)
    responder.receive(query(SMGW, A), ASKER, now_s)
    assert now_s + 0.02 <= responder.next_s <= now_s + 0.12
    responder.advance(responder.next_s)
    responder.receive(query(SMGW, AAAA, is_truncated=True), ASKER, now_s + 5)
    assert now_s + 5.4 <= responder.next_s <= now_s + 5.5


def test_what_the_asker_knows_or_another_has_said_is_not_repeated() -> None:
    responder, now_s = running()
    ours = next(each for each in RECORDS if lower(each.name) == SMGW and each.type == A)
    assert answers(responder, query(SMGW, A, answers=(ours,)), now_s) == []
    assert answers(responder, query(SMGW, A, answers=(with_ttl(ours, 59),)), now_s) != []
    responder.receive(query(SMGW, A), ASKER, now_s + 5)
    responder.receive(Message(is_response=True, answers=(ours,)), ASKER, now_s + 5.001)
    assert responder.next_s == float("inf")
    responder.receive(query(SMGW, A, is_truncated=True), ASKER, now_s + 10)
    responder.receive(Message(answers=(ours,)), ASKER, now_s + 10.2)  # the rest of what is known
    assert responder.next_s == float("inf")


def test_one_record_is_sent_to_all_once_a_second() -> None:
    responder, now_s = running()
    assert len(answers(responder, query(HOST, A), now_s)) == 1
    assert answers(responder, query(HOST, A), now_s + 0.9) == []
    assert len(answers(responder, query(HOST, A), now_s + 1.0)) == 1


def test_who_asks_for_it_alone_gets_it_alone() -> None:
    responder, now_s = running()
    (out,) = responder.receive(query(HOST, A, unicast=True), ASKER, now_s)
    assert out.to == ASKER
    assert responder.next_s == float("inf")


def test_a_plain_resolver_gets_a_plain_answer() -> None:
    responder, now_s = running()
    asker = ("192.168.1.7", 40_000)
    (out,) = responder.receive(replace(query(HOST, A), id=77), asker, now_s)
    (answer,) = heard([out])
    assert (out.to, answer.id, answer.questions) == (asker, 77, (Question(HOST, A),))
    assert all(each.ttl_s <= 10 and not each.is_unique for each in (*answer.answers, *answer.additionals))


def test_no_more_than_thirty_multicasts_leave_in_a_minute() -> None:
    responder, start_s = running()
    times, now_s = [], start_s
    while now_s < start_s + 300:
        responder.receive(query(HOST, A), ASKER, now_s)
        times += [now_s] * len(responder.advance(now_s))
        now_s += 1.0
    assert len(times) > 120
    for each in times:
        assert sum(each <= other < each + 60 for other in times) <= 30


def test_two_interfaces_share_the_thirty() -> None:
    budget = Budget()
    first, _ = running(budget=budget)
    second, now_s = running(budget=budget)
    sent = 0
    for step in range(59):
        for each in (first, second):
            each.receive(query(HOST, A), ASKER, now_s + step)
            sent += len(each.advance(now_s + step))
    assert sent <= 30


def test_answers_to_one_asker_are_bounded_too() -> None:
    responder, now_s = running()
    sent = [responder.receive(query(HOST, A, unicast=True), ASKER, now_s) for _ in range(100)]
    assert sum(map(len, sent)) == 20


def test_it_says_goodbye() -> None:
    responder, now_s = running()
    (goodbye,) = heard(responder.goodbye(now_s))
    assert {each.key for each in goodbye.answers} == {each.key for each in RECORDS}
    assert {each.ttl_s for each in goodbye.answers} == {0}


def test_responses_from_other_ports_count_for_nothing() -> None:
    responder = Responder(RECORDS, Random(1).uniform, Budget(), 0.0)
    other = Record(HOST, A, b"\x0a\0\0\1", 120, is_unique=True)
    responder.receive(Message(is_response=True, answers=(other,)), ("192.168.1.9", 40_000), 0.1)
    assert responder.state is State.PROBING


def test_names_are_compressed_and_read_again() -> None:
    message = Message(is_response=True, answers=tuple(RECORDS))
    octets = message.to_bytes()
    assert read_message(octets) == message
    assert octets.count(b"estk0100000001") == 4  # as an owner once, and in data that is not compressed
    compressed = (
        bytes.fromhex("0000 8400 0000 0001 0000 0000") + b"\x01a\x00" + bytes.fromhex("000c 0001 00000078 0002 c00c")
    )
    assert read_message(compressed).answers[0].data == b"\x01a\x00"


@pytest.mark.parametrize(
    "octets",
    [
        b"", bytes(11), bytes(2) + b"\x28\x00" + bytes(8), bytes(4) + b"\0\1" + bytes(6),
        bytes(4) + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1", bytes(4) + b"\0\1" + bytes(6) + b"\x80\0\0\1\0\1",
        bytes(4) + b"\xff\xff" + bytes(6), bytes(4) + b"\0\1" + bytes(6) + (b"\x3f" + b"a" * 63) * 5 + bytes(5),
        bytes(9_001),
    ],
)  # fmt: skip
def test_a_message_that_does_not_fit_is_refused(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_mdns"):
        read_message(octets)


@given(st.binary(max_size=400))
def test_any_octets_raise_the_remote_error_alone(octets: bytes) -> None:
    responder, now_s = running()
    for data in (octets, bytes(2) + b"\x84\0" + octets, bytes(4) + b"\0\1\0\1\0\1\0\1" + octets):
        try:
            message = read_message(data)
        except RemoteProtocolError:
            continue
        responder.receive(message, ASKER, now_s)
        responder.advance(now_s + 1)
