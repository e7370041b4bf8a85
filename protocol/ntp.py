"""
NTP messages as BSI TR-03109-1 (detail specification 2.0, chapter 14) has them: 48 octets of RFC 5905 over TLS.

No extensions, no keys, no kiss codes; authenticity is TLS's.  A client tells the server nothing that it does not need
(RFC 8633): all fields of a request are 0 but version, mode, precision, and a random transmit timestamp, which the
answer must give back and by which alone the two belong together.

Times are integers: microseconds since 1970 (UTC).  Timestamps on the wire count from 1900 and wrap in 2036; a client
takes the era that is nearest to a time after `ERA_START_S`, so it converts correctly up to `VALID_UNTIL_S`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from protocol.errors import RemoteProtocolError

PACKET_SIZE: Final = 48
ROUND_TRIP_MAX_US: Final = 9_000_000
"""REQ.TA.NTP.ProcessResponse.10."""
STEP_MAX_US: Final = 1_000_000_000
"""REQ.TA.NTP.ProcessResponse.110: what a synchronised clock is moved by at most."""

ERA_START_S: Final = 1_767_225_600
"""2026-01-01: no time server of ours says an earlier time."""
VALID_UNTIL_S: Final = ERA_START_S + 2**32 - 1
"""ICS.TA.NTP.ProcessResponse.10: February 2162, one era after `ERA_START_S`."""

_PACKET: Final = struct.Struct("!BBbbII4sQQQQ")
_EPOCH_S: Final = 2_208_988_800  # from 1900 to 1970
_VERSION, _CLIENT, _SERVER, _UNSYNCHRONISED = 4, 3, 4, 3
_PRECISION_HIDDEN = 32


@dataclass(frozen=True, slots=True)
class ServerState:
    """
    What a server says of its own clock.

    `stratum` is that of its source and one more; `root_delay_us` and `root_dispersion_us` are to the root,
    `reference_us` is when the clock was set last.  Where it is not `is_synchronised`, answers carry the warning that
    makes clients ignore them.
    """

    is_synchronised: bool
    stratum: int = 2
    reference_id: bytes = b"\0\0\0\0"
    root_delay_us: int = 0
    root_dispersion_us: int = 0
    reference_us: int = 0
    precision: int = -20


@dataclass(frozen=True, slots=True)
class Sample:
    """
    What an answer says of our clock: it is `offset_us` behind the server's, and off by `error_us` of that at most.

    `error_us` is half of the round trip and of the delay to the root, plus the root's dispersion; `stratum` is the
    server's.
    """

    offset_us: int
    error_us: int
    stratum: int


def build_request(cookie: int) -> bytes:
    """A request; `cookie` are 64 random bits."""
    first = _VERSION << 3 | _CLIENT
    return _PACKET.pack(first, 0, 0, _PRECISION_HIDDEN, 0, 0, bytes(4), 0, 0, 0, cookie)


def answer_request(request: bytes, state: ServerState, received_us: int, now_us: int) -> bytes:
    """
    The answer to a request that came in at `received_us` and is answered at `now_us`.

    Raises RemoteProtocolError `bad_ntp_request` for what is to be ignored (REQ.TA.NTP.ProcessRequest.10).
    """
    if len(request) != PACKET_SIZE:
        raise RemoteProtocolError("bad_ntp_request", f"{len(request)} octets, expected {PACKET_SIZE}")
    first, _, poll, _, _, _, _, _, _, _, cookie = _PACKET.unpack(request)
    if first >> 3 & 7 != _VERSION or first & 7 != _CLIENT:
        raise RemoteProtocolError("bad_ntp_request", "expected version 4, mode client")
    leap = 0 if state.is_synchronised else _UNSYNCHRONISED
    return _PACKET.pack(
        leap << 6 | _VERSION << 3 | _SERVER, state.stratum if state.is_synchronised else 0, poll, state.precision,
        _short(state.root_delay_us), _short(state.root_dispersion_us), state.reference_id,
        _timestamp(state.reference_us), cookie, _timestamp(received_us), _timestamp(now_us),
    )  # fmt: skip


def read_response(
    response: bytes, cookie: int, sent_us: int, received_us: int, *, is_synchronised: bool
) -> Sample:  # fmt: skip
    """
    What an answer says of the clock that showed `sent_us` and `received_us` when request and answer went and came.

    Raises RemoteProtocolError for each answer that section 14.3.2 has ignored, with the reason: `ntp_size`,
    `ntp_version`, `ntp_mode`, `ntp_not_synchronised`, `ntp_other_request`, `ntp_delayed`, `ntp_time_range`,
    `ntp_step_too_large`.
    """
    if len(response) != PACKET_SIZE:
        raise RemoteProtocolError("ntp_size", f"{len(response)} octets, expected {PACKET_SIZE}")
    first, stratum, _, _, delay, dispersion, _, _, origin, receive, transmit = _PACKET.unpack(response)
    if first >> 3 & 7 < _VERSION:
        raise RemoteProtocolError("ntp_version", f"version {first >> 3 & 7}, expected 4")
    if first & 7 != _SERVER:
        raise RemoteProtocolError("ntp_mode", f"mode {first & 7}, expected {_SERVER}")
    if first >> 6 == _UNSYNCHRONISED or not 0 < stratum < 16:
        raise RemoteProtocolError("ntp_not_synchronised", "the server's clock is not synchronised")
    if origin != cookie:
        raise RemoteProtocolError("ntp_other_request", "an answer to another request")
    round_trip_us = received_us - sent_us
    if not 0 <= round_trip_us <= ROUND_TRIP_MAX_US:
        raise RemoteProtocolError("ntp_delayed", f"more than {ROUND_TRIP_MAX_US // 1_000_000} s on the way")
    server_received_us, server_sent_us = _unix_us(receive), _unix_us(transmit)
    if not transmit or not receive or server_sent_us < server_received_us:
        raise RemoteProtocolError("ntp_time_range", "timestamps that cannot be")
    offset_us = (server_received_us - sent_us + server_sent_us - received_us) // 2
    if is_synchronised and abs(offset_us) > STEP_MAX_US:
        raise RemoteProtocolError("ntp_step_too_large", f"more than {STEP_MAX_US // 1_000_000} s off")
    network_us = max(0, round_trip_us - (server_sent_us - server_received_us))
    error_us = network_us // 2 + (delay * 1_000_000 >> 16) // 2 + (dispersion * 1_000_000 >> 16)
    return Sample(offset_us, error_us, stratum)


def _timestamp(unix_us: int) -> int:
    """Seconds since 1900 and their fraction, modulo an era."""
    seconds, rest = divmod(unix_us, 1_000_000)
    return (seconds + _EPOCH_S) % 2**32 << 32 | (rest << 32) // 1_000_000


def _unix_us(timestamp: int) -> int:
    """The time from `ERA_START_S` on that has a timestamp."""
    seconds = (timestamp >> 32) - _EPOCH_S
    return (ERA_START_S + (seconds - ERA_START_S) % 2**32) * 1_000_000 + ((timestamp & 0xFFFFFFFF) * 1_000_000 >> 32)


def _short(duration_us: int) -> int:
    """16 bits of seconds and 16 of their fraction; longer durations are as long as can be said."""
    return min(0xFFFFFFFF, (duration_us << 16) // 1_000_000)
