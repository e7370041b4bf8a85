"""Primary and secondary station against each other on a line that loses frames, without I/O and with time as data."""

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.lmn.hdlc.frame import Address, Frame, FrameReader, Kind
from node.lmn.hdlc.primary import PrimaryStation, State, Timing
from node.lmn.hdlc.secondary import SecondaryStation
from node.lmn.hdlc.station import Connected, Delivered, Disconnected, Parameters, Transmit, Unnumbered
from protocol.errors import LocalProtocolError, RemoteProtocolError

CLIENT, SERVER = Address(16), Address(1, 17, 2)
TIMING = Timing(response_timeout_s=1.0, retry_count_max=8, poll_interval_s=0.1)


class Line:
    """Both stations, a clock, and losses by lot; the meter answers each unit with its reverse."""

    def __init__(self, parameters: Parameters, rng: random.Random, loss: float) -> None:
        self.primary = PrimaryStation(CLIENT, SERVER, parameters, TIMING)
        self.secondary = SecondaryStation(SERVER, parameters)
        self.now, self.rng, self.loss = 0.0, rng, loss
        self.delivered: list[bytes] = []
        self.heard: list[bytes] = []
        self.ended: str | None = None
        self.readers = FrameReader(), FrameReader()

    def carry(self, data: bytes, reader: FrameReader) -> list[Frame]:
        if self.rng.random() < self.loss:
            data = b"" if self.rng.random() < 0.5 else bytes([data[0], data[1] ^ 0x40]) + data[2:]
        frames = [item for item in reader.feed(data) if isinstance(item, Frame)]
        reader.reset()
        return frames

    def follow(self, instructions: Iterable[object]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Transmit):
                self.to_secondary(instruction.data)
            elif isinstance(instruction, Delivered):
                self.delivered.append(instruction.data)
            elif isinstance(instruction, Disconnected):
                self.ended = instruction.reason

    def to_secondary(self, data: bytes) -> None:
        answers = []
        for frame in self.carry(data, self.readers[0]):
            for event in self.secondary.receive(frame):
                if isinstance(event, Delivered):
                    self.heard.append(event.data)
                    self.secondary.send(event.data[::-1])
            answers += self.secondary.respond()
        for answer in answers:
            assert isinstance(answer, Transmit)
            for frame in self.carry(answer.data, self.readers[1]):
                self.follow(self.primary.receive(frame, self.now))

    def run(self, done: Callable[[], bool]) -> None:
        for _ in range(4000):
            if done() or self.ended:
                return
            timer_s = self.primary.next_timer_s()
            assert timer_s is not None
            self.now = timer_s
            self.follow(self.primary.timer(self.now))
        raise AssertionError("no end")


@given(
    st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4),
    st.sampled_from([1, 2, 7]),
    st.sampled_from([10, 64]),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 0.25]),
)
def test_every_unit_arrives_once_and_in_order_or_the_connection_ends(
    units: list[bytes], window: int, size: int, seed: int, loss: float
) -> None:
    parameters = Parameters(size, size, window, window)
    line = Line(parameters, random.Random(seed), loss)
    line.follow(line.primary.connect(line.now))
    line.run(lambda: line.primary.state is State.CONNECTED)
    for index, unit in enumerate(units):
        if line.ended:
            break
        line.follow(line.primary.send(unit, line.now))
        line.run(partial(arrived, line, index + 1))
    if line.ended:
        assert loss > 0
        assert line.ended in ("timeout", "no_progress")
    else:
        assert line.heard == units
        assert line.delivered == [unit[::-1] for unit in units]
        line.follow(line.primary.disconnect(line.now))
        line.run(lambda: False)
        assert line.ended in ("requested", "timeout")
    assert line.heard == units[: len(line.heard)]


def arrived(line: Line, count: int) -> bool:
    return len(line.delivered) == count and not line.primary.unacknowledged


def connected(parameters: Parameters | None = None) -> PrimaryStation:
    station = PrimaryStation(CLIENT, SERVER, parameters, TIMING)
    station.connect(0.0)
    (event,) = station.receive(answer(Kind.UNNUMBERED_ACKNOWLEDGE), 0.0)
    assert isinstance(event, Connected)
    return station


def answer(kind: Kind, **more: Any) -> Frame:
    return Frame(CLIENT, SERVER, kind, **more)


def test_a_station_that_is_not_ready_is_asked_again_later() -> None:
    station = connected()
    station.send(b"question", 0.0)
    assert station.receive(answer(Kind.RECEIVE_NOT_READY, receive_number=1), 0.0) == []
    assert station.next_timer_s() == pytest.approx(0.1)
    (poll,) = station.timer(0.1)
    assert isinstance(poll, Transmit)
    assert Frame.from_bytes(poll.data[1:-1]).kind is Kind.RECEIVE_READY
    (unit,) = station.receive(answer(Kind.INFORMATION, information=b"answer", receive_number=1), 0.2)
    assert unit == Delivered(b"answer")


def test_a_rejected_frame_goes_again() -> None:
    station = connected()
    (first,) = station.send(b"question", 0.0)
    (again,) = station.receive(answer(Kind.REJECT, receive_number=0), 0.0)
    assert again == first


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (answer(Kind.DISCONNECTED_MODE), "disconnected_mode"),
        (answer(Kind.FRAME_REJECT), "frame_rejected"),
        (answer(Kind.RECEIVE_READY, receive_number=5), "hdlc_sequence"),
    ],
)
def test_what_ends_a_connection(frame: Frame, reason: str) -> None:
    station = connected()
    station.send(b"question", 0.0)
    assert station.receive(frame, 0.0) == [Disconnected(reason)]
    assert station.state is State.DISCONNECTED
    with pytest.raises(LocalProtocolError):
        station.send(b"more", 0.0)


def test_frames_of_others_and_late_answers_change_nothing() -> None:
    station = connected()
    other = Frame(CLIENT, Address(9), Kind.DISCONNECTED_MODE)
    assert station.receive(other, 0.0) == []
    station.send(b"question", 0.0)
    assert station.receive(other, 0.0) == []  # while its own one's answer is awaited
    assert station.awaiting
    station = connected()
    assert station.receive(answer(Kind.DISCONNECTED_MODE), 0.0) == []  # nothing was asked
    note = station.receive(answer(Kind.UNNUMBERED_INFORMATION, information=b"x"), 0.0)
    assert note == [Unnumbered(b"x", SERVER)]
    assert station.state is State.CONNECTED


def test_a_refusal_and_a_connection_are_told_apart() -> None:
    station = PrimaryStation(CLIENT, SERVER, None, TIMING)
    station.connect(0.0)
    assert station.receive(answer(Kind.DISCONNECTED_MODE), 0.0) == [Disconnected("refused")]


def test_the_secondary_speaks_only_when_polled_and_only_to_its_client() -> None:
    station = SecondaryStation(SERVER)
    stranger = Address(33)
    station.receive(Frame(SERVER, stranger, Kind.RECEIVE_READY))
    (dm,) = station.respond()
    assert isinstance(dm, Transmit)
    assert Frame.from_bytes(dm.data[1:-1]).kind is Kind.DISCONNECTED_MODE
    station.receive(Frame(SERVER, CLIENT, Kind.SET_NORMAL_RESPONSE_MODE))
    station.respond()
    station.send(b"data")
    assert station.respond() == []
    station.receive(Frame(SERVER, CLIENT, Kind.RECEIVE_READY, receive_number=6))
    (reject,) = station.respond()
    assert isinstance(reject, Transmit)
    assert Frame.from_bytes(reject.data[1:-1]).kind is Kind.FRAME_REJECT


def test_parameters_pass_and_nonsense_does_not() -> None:
    mine, theirs = Parameters(2030, 512, 7, 1), Parameters(128, 256, 1, 3)
    assert Parameters.from_bytes(mine.to_bytes()) == mine
    assert mine.agreed_with(theirs) == Parameters(256, 128, 3, 1)
    assert Parameters.from_bytes(b"") == Parameters()
    for wrong in (b"\x81\x80", b"\x81\x80\x03\x05\x01\x00", b"\x81\x80\x02\x05\x09", b"\x81\x80\x01\x05"):
        with pytest.raises(RemoteProtocolError):
            Parameters.from_bytes(wrong)
