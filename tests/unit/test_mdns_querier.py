"""Questions by multicast DNS: when they are asked, what is believed of the answers and for how long; no sockets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.mdns.cache import RECORDS_MAX, Cache
from protocol.mdns.messages import (
    AAAA,
    PTR,
    SRV,
    A,
    Message,
    Question,
    Record,
    name_of,
    packed,
    read_message,
    srv_data,
    with_ttl,
)
from protocol.mdns.querier import QUESTIONS_MAX, Querier
from protocol.mdns.records import Service, additionals_of, address_of, place_of, records_of
from protocol.mdns.responder import MULTICASTS_A_MINUTE_MAX, PORT, Budget, Responder

PUMP = name_of("heatpump.local")
FIRST, SECOND = (ip_address(each).packed for each in ("192.168.1.60", "192.168.1.61"))
OTHER = ("192.168.1.7", PORT)


def querier(budget: Budget | None = None, cache: Cache | None = None, seed: int = 1, **more: Any) -> Querier:
    return Querier(Random(seed).uniform, budget or Budget(), cache or Cache(), **more)


def address(data: bytes = FIRST, ttl_s: int = 120, *, is_unique: bool = True) -> Record:
    return Record(PUMP, A, data, ttl_s, is_unique)


def said(*answers: Record) -> Message:
    return Message(is_response=True, answers=answers)


def asked(asking: Querier, until_s: float) -> list[tuple[float, Message]]:
    found = []
    while (now_s := asking.next_s) <= until_s:
        found += [(now_s, read_message(each)) for each in asking.advance(now_s)]
    return found


def test_a_question_is_repeated_ever_more_seldom_until_it_is_forgotten() -> None:
    asking = querier()
    asking.ask(PUMP, A, 0.0)
    times = [at_s for at_s, _ in asked(asking, 100)]
    assert 0.02 <= times[0] <= 0.12  # section 5.2: devices that start together do not ask together
    pauses = [round(after - before, 3) for before, after in pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32]
    asking.forget(PUMP, A)
    assert asking.next_s == float("inf")


def test_questions_of_one_moment_are_one_message_for_everybody() -> None:
    asking = querier()
    for kind in (A, AAAA):
        asking.ask(PUMP, kind, 0.0)
        asking.ask(name_of("HeatPump.Local"), kind, 0.0)  # the same one
    (message,) = [read_message(each) for each in asking.advance(1.0)]
    assert message.questions == (Question(PUMP, A), Question(PUMP, AAAA))
    assert (message.id, message.is_response, message.answers) == (0, False, ())


def test_a_question_has_the_same_octets_over_both_ip_versions() -> None:
    cache = Cache()
    cache.take(said(address(ttl_s=10, is_unique=False)), 0.0)
    messages = []
    for seed in (1, 2):  # what one draws is not what the other draws
        asking = querier(cache=cache, seed=seed)
        asking.ask(PUMP, A, 0.0)
        messages += asking.advance(1.0)
    assert len(messages) == 2
    assert messages[0] == messages[1]


def test_questions_and_answers_together_are_thirty_a_minute() -> None:
    budget = Budget()
    records = records_of("ESTK0100000001", [], [ip_address("192.168.1.200")])
    responder = Responder(records, Random(1).uniform, budget, 0.0)
    count, now_s = 0, 0.0
    while now_s < 60:
        asking = querier(budget)
        asking.ask(PUMP, A, now_s)
        now_s += 0.2
        count += len(asking.advance(now_s)) + len(responder.advance(now_s))
    assert count == MULTICASTS_A_MINUTE_MAX == 30


def test_known_answers_are_said_with_the_time_that_is_left() -> None:
    asking = querier()
    asking.cache.take(said(address(ttl_s=120)), 0.0)
    asking.cache.take(said(address(SECOND, ttl_s=60, is_unique=False)), 0.0)
    asking.ask(PUMP, A, 40.0)
    (message,) = [read_message(each) for each in asking.advance(41.0)]
    assert [(each.data, each.ttl_s) for each in message.answers] == [(FIRST, 79)]  # the other has less than half


def test_what_another_has_just_asked_is_not_asked_again() -> None:
    question = Message(questions=(Question(PUMP, A),))
    asking = querier()
    asking.ask(PUMP, A, 0.0)
    asking.receive(question, OTHER, 0.01)
    assert asked(asking, 0.9) == []
    for other in (
        replace(question, questions=(Question(PUMP, A, is_unicast=True),)),  # its answer comes to it alone
        replace(question, answers=(address(),)),  # it suppresses an answer that is not known here
        replace(question, is_truncated=True), replace(question, questions=(Question(PUMP, AAAA),)),
    ):  # fmt: skip
        asking = querier()
        asking.ask(PUMP, A, 0.0)
        asking.receive(other, OTHER, 0.01)
        assert len(asked(asking, 0.9)) == 1, other
    own = querier(own={"192.168.1.2"})
    own.ask(PUMP, A, 0.0)
    own.receive(question, ("192.168.1.2", PORT), 0.01)
    assert len(asked(own, 0.9)) == 1


def test_only_responders_are_believed() -> None:
    asking = querier()
    asking.receive(said(address()), ("192.168.1.7", 5_354), 0.0)
    assert asking.cache.find(PUMP, A, 0.0) == []
    asking.receive(said(address()), OTHER, 0.0)
    assert [each.data for each in asking.cache.find(name_of("HEATPUMP.local"), A, 0.0)] == [FIRST]


def test_a_record_holds_for_its_time_and_a_goodbye_ends_it() -> None:
    cache = Cache()
    cache.take(said(address(ttl_s=10)), 0.0)
    assert len(cache.find(PUMP, A, 9.9)) == 1
    assert cache.find(PUMP, A, 10.0) == []
    cache.take(said(address(ttl_s=100_000)), 20.0)
    assert cache.find(PUMP, A, 20.0 + 4_500) == []  # nobody is believed for a day
    cache.take(said(address()), 30.0)
    cache.take(said(with_ttl(address(), 0)), 31.0)
    assert len(cache.find(PUMP, A, 31.9)) == 1
    assert cache.find(PUMP, A, 32.0) == []


def test_unique_data_replaces_older_and_what_comes_together_stays() -> None:
    cache = Cache()
    cache.take(said(address(FIRST)), 0.0)
    cache.take(said(address(SECOND)), 0.5)  # another message of the same announcement
    assert {each.data for each in cache.find(PUMP, A, 5.0)} == {FIRST, SECOND}
    cache.take(said(address(SECOND)), 10.0)
    assert {each.data for each in cache.find(PUMP, A, 10.5)} == {FIRST, SECOND}
    assert {each.data for each in cache.find(PUMP, A, 11.0)} == {SECOND}
    cache.take(said(address(FIRST, is_unique=False)), 20.0)  # shared data contradicts nothing
    assert {each.data for each in cache.find(PUMP, A, 25.0)} == {FIRST, SECOND}


def test_a_flood_of_answers_or_questions_is_bounded() -> None:
    asking = querier()
    for index in range(3 * RECORDS_MAX):
        name = name_of(f"h{index}.local")
        asking.receive(said(Record(name, A, FIRST, 120)), OTHER, 0.0)
        asking.ask(name, A, 0.0)
    assert len(asking.cache._held) == RECORDS_MAX
    assert asking.cache.find(name_of(f"h{3 * RECORDS_MAX - 1}.local"), A, 0.0)
    (message,) = [read_message(each) for each in asking.advance(1.0)]
    assert len(message.questions) == QUESTIONS_MAX


def test_a_services_place_and_address_come_from_its_records() -> None:
    records = records_of("ESTK0100000001", [Service("_socks._tcp", 1_080)], [ip_address("192.168.1.200")])
    (found,) = [each for each in records if each.type == SRV]
    assert place_of(found) == (1_080, name_of("estk0100000001.local"))
    assert {address_of(each) for each in additionals_of([found], records) if each.type == A} == {
        ip_address("192.168.1.200")
    }
    assert place_of(replace(found, data=srv_data(5, ()))) == (5, ())
    assert place_of(replace(found, data=b"\0\0")) == place_of(Record(PUMP, PTR, packed(PUMP), 1)) == (0, ())


@given(st.binary(max_size=200), st.lists(st.binary(max_size=80), max_size=4))
def test_any_octets_leave_the_querier_working(data: bytes, parts: list[bytes]) -> None:
    asking = querier()
    asking.ask(PUMP, A, 0.0)
    for octets in (data, *(b"\0\0\x84\0\0\0\0\1\0\0\0\0" + each for each in parts)):
        try:
            message = read_message(octets)
        except RemoteProtocolError:
            continue
        asking.receive(message, OTHER, 0.0)
        for each in (*message.answers, *message.additionals):
            place_of(each), address_of(each)
    asking.receive(said(address()), OTHER, 0.5)
    assert FIRST in {each.data for each in asking.cache.find(PUMP, A, 0.6)}
