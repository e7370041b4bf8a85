"""NTP messages: chapter 14 of the detail specification, requirement by requirement, and both eras."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.ntp import (
    ERA_START_S,
    PACKET_SIZE,
    VALID_UNTIL_S,
    ServerState,
    answer_request,
    build_request,
    read_response,
)

COOKIE = 0x0123456789ABCDEF
NOW_US = 1_796_000_000_000_000  # November 2026
STATE = ServerState(
    is_synchronised=True, stratum=3, reference_id=b"PTB1", root_delay_us=4_000, root_dispersion_us=1_500,
    reference_us=NOW_US - 7,
)  # fmt: skip


def answered(state: ServerState = STATE, at_us: int = NOW_US) -> bytearray:
    """An answer of a server whose clock shows `at_us`."""
    return bytearray(answer_request(build_request(COOKIE), state, at_us, at_us + 100))


def test_request_has_48_octets_and_says_nothing_of_the_gateway() -> None:
    """REQ.TA.NTP.BuildRequest.10 to .40: version 4, mode 3, minimised fields."""
    request = build_request(COOKIE)
    assert len(request) == PACKET_SIZE
    assert request[0] == 0b00_100_011
    assert request[1:40] == bytes([0, 0, 32]) + bytes(36)
    assert request[40:] == COOKIE.to_bytes(8, "big")


def test_response_fields_are_the_servers_state() -> None:
    """REQ.TA.NTP.BuildResponse.10, .30, .40, .41."""
    response = bytes(answered())
    first, stratum, poll, precision, delay, dispersion, ref, reference, origin, receive, transmit = struct.unpack(
        "!BBbbII4sQQQQ", response
    )
    assert (first, stratum, poll, precision, ref) == (0b00_100_100, 3, 0, -20, b"PTB1")
    assert (delay, dispersion) == (4_000 * 65_536 // 1_000_000, 1_500 * 65_536 // 1_000_000)
    assert origin == COOKIE
    assert reference < receive < transmit
    assert (transmit >> 32) - 2_208_988_800 == NOW_US // 1_000_000


def test_server_without_time_warns_and_the_client_ignores_it() -> None:
    """REQ.TA.NTP.BuildResponse.20, ProcessResponse.50."""
    response = answered(ServerState(is_synchronised=False))
    assert response[0] >> 6 == 3
    for stratum in (0, 2):  # the warning counts, whatever stratum another server gives itself beside it
        response[1] = stratum
        with pytest.raises(RemoteProtocolError) as refused:
            read_response(bytes(response), COOKIE, NOW_US, NOW_US, is_synchronised=False)
        assert refused.value.reason == "ntp_not_synchronised"


@pytest.mark.parametrize(
    "request_",
    [
        build_request(COOKIE)[:-1], build_request(COOKIE) + b"\0", b"",
        bytes([0b00_011_011]) + build_request(COOKIE)[1:], bytes([0b00_100_100]) + build_request(COOKIE)[1:],
    ],
    ids=["short", "long", "empty", "version 3", "mode server"],
)  # fmt: skip
def test_request_of_another_form_is_ignored(request_: bytes) -> None:
    """REQ.TA.NTP.ProcessRequest.10."""
    with pytest.raises(RemoteProtocolError) as refused:
        answer_request(request_, STATE, NOW_US, NOW_US)
    assert refused.value.reason == "bad_ntp_request"


def test_offset_and_error_follow_from_the_four_times() -> None:
    response = answer_request(build_request(COOKIE), STATE, NOW_US + 5_000_000, NOW_US + 5_000_400)
    sample = read_response(response, COOKIE, NOW_US, NOW_US + 2_400, is_synchronised=True)
    assert sample.offset_us == pytest.approx(5_000_000 - 1_000, abs=1)
    assert sample.error_us == pytest.approx(1_000 + 2_000 + 1_500, abs=50)
    assert sample.stratum == 3


@pytest.mark.parametrize(
    ("position", "value", "reason"),
    [
        (0, 0b00_011_100, "ntp_version"), (0, 0b00_100_011, "ntp_mode"), (0, 0b11_100_100, "ntp_not_synchronised"),
        (1, 0, "ntp_not_synchronised"), (1, 16, "ntp_not_synchronised"), (24, 0xFF, "ntp_other_request"),
    ],
)  # fmt: skip
def test_answer_that_must_be_ignored_is_refused_by_name(position: int, value: int, reason: str) -> None:
    """REQ.TA.NTP.ProcessResponse.30, .50, .51, .52."""
    response = answered()
    response[position] = value
    with pytest.raises(RemoteProtocolError) as refused:
        read_response(bytes(response), COOKIE, NOW_US, NOW_US, is_synchronised=False)
    assert refused.value.reason == reason


@pytest.mark.parametrize(("round_trip_us", "is_taken"), [(9_000_000, True), (9_000_001, False), (-1, False)])
def test_answer_that_was_over_9_s_on_the_way_is_ignored(round_trip_us: int, *, is_taken: bool) -> None:
    """REQ.TA.NTP.ProcessResponse.10."""
    response = bytes(answered())
    if is_taken:
        read_response(response, COOKIE, NOW_US, NOW_US + round_trip_us, is_synchronised=True)
        return
    with pytest.raises(RemoteProtocolError) as refused:
        read_response(response, COOKIE, NOW_US, NOW_US + round_trip_us, is_synchronised=True)
    assert refused.value.reason == "ntp_delayed"


@pytest.mark.parametrize("is_synchronised", [True, False])
def test_only_a_clock_that_is_not_synchronised_is_moved_by_over_1000_s(*, is_synchronised: bool) -> None:
    """REQ.TA.NTP.ProcessResponse.110."""
    response = bytes(answered(at_us=NOW_US + 1_001_000_000))
    if not is_synchronised:
        assert read_response(response, COOKIE, NOW_US, NOW_US, is_synchronised=False).offset_us > 1_000_000_000
        return
    with pytest.raises(RemoteProtocolError) as refused:
        read_response(response, COOKIE, NOW_US, NOW_US, is_synchronised=True)
    assert refused.value.reason == "ntp_step_too_large"


@pytest.mark.parametrize("cut", [slice(32, 40), slice(40, 48)], ids=["receive", "transmit"])
def test_answer_without_a_time_is_ignored(cut: slice) -> None:
    """REQ.TA.NTP.ProcessResponse.40."""
    response = answered()
    response[cut] = bytes(8)
    with pytest.raises(RemoteProtocolError) as refused:
        read_response(bytes(response), COOKIE, NOW_US, NOW_US, is_synchronised=False)
    assert refused.value.reason == "ntp_time_range"


@given(second=st.integers(ERA_START_S, VALID_UNTIL_S - 1), fraction_us=st.integers(0, 999_999))
def test_times_of_both_eras_come_back(second: int, fraction_us: int) -> None:
    """ICS.TA.NTP.ProcessResponse.10: through 2036 and 2038, up to 2162."""
    at_us = second * 1_000_000 + fraction_us
    response = answer_request(build_request(COOKIE), STATE, at_us, at_us)
    sample = read_response(response, COOKIE, NOW_US, NOW_US, is_synchronised=False)
    assert abs(sample.offset_us - (at_us - NOW_US)) <= 1


@given(data=st.binary(max_size=100), cookie=st.integers(0, 2**64 - 1))
def test_any_octets_are_read_or_refused(data: bytes, cookie: int) -> None:
    with suppress(RemoteProtocolError):  # any other error is a defect
        read_response(data, cookie, NOW_US, NOW_US + 5, is_synchronised=False)
    with suppress(RemoteProtocolError):
        answer_request(data, STATE, NOW_US, NOW_US)
