"""Times of measurement, counters that fall, and the impulse input."""

from datetime import UTC, datetime, timedelta

import pytest
import trio
from trio.testing import memory_stream_one_way_pair

from node.lmn.s0 import PulseInput, listen
from node.lmn.sml.bodies import GetListResponse
from node.lmn.sml.bodies import Message as SmlMessage
from node.lmn.sml.readings import readings as sml_readings
from node.lmn.sml.readings import server_id
from node.lmn.sml.values import SEC_INDEX, ListEntry, Time, signed
from node.lmn.timestamps import Fallen, MonotonicWatch, time_of_measurement
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis, is_cumulative
from protocol.metering.reading import Quality, Reading, is_billable

RECEIVED = datetime(2026, 3, 1, 12, 0, 0, 400_000, tzinfo=UTC)
IMPORT = Obis(1, 0, 1, 8, 0, 255)


def test_time_of_measurement_is_reception_less_the_age() -> None:
    assert time_of_measurement(RECEIVED, 99_043_543, 99_043_540) == RECEIVED - timedelta(seconds=3)
    assert time_of_measurement(RECEIVED, 7, 7) == RECEIVED
    with pytest.raises(RemoteProtocolError, match="value_after_message"):
        time_of_measurement(RECEIVED, 7, 8)


def reading(value: int, scaler: int = 0, *, seconds: int | None = None, obis: Obis = IMPORT) -> Reading:
    return Reading("1ABC0000000001", obis, value, scaler, 30, meter_seconds=seconds)


def test_a_falling_counter_is_news_once() -> None:
    watch = MonotonicWatch()
    assert watch.check([reading(1000)]) == []
    assert watch.check([reading(10_001, -1)]) == []  # finer digits, a little more
    assert watch.check([reading(999)]) == [Fallen("1ABC0000000001", "decremented_counter", IMPORT)]
    assert watch.check([reading(999)]) == []


def test_falling_time() -> None:
    watch = MonotonicWatch()
    watch.check([reading(1, seconds=100)])
    assert watch.check([reading(1, seconds=100)]) == []
    assert [f.reason for f in watch.check([reading(1, seconds=99)])] == ["decremented_timestamp"]


def test_a_falling_message_second_is_refused_whatever_its_values_say() -> None:
    watch = MonotonicWatch()
    first, second = (
        SmlMessage(b"", GetListResponse(None, server_id("1EMH0000000001"), None, Time(SEC_INDEX, sent), (entry,)))
        for sent, entry in ((900, list_entry(100)), (800, list_entry(101)))
    )
    assert watch.check(sml_readings([first])) == []
    assert [f.reason for f in watch.check(sml_readings([second]))] == ["decremented_timestamp"]


def list_entry(second: int) -> ListEntry:
    return ListEntry(IMPORT.to_bytes(), None, Time(SEC_INDEX, second), 30, -1, signed(1000 + second))


def test_values_of_one_message_may_be_of_different_age() -> None:
    watch = MonotonicWatch()
    for second in (100, 101):
        assert watch.check([reading(1, seconds=second), reading(1, seconds=second - 50)]) == []


def test_what_may_fall_is_not_watched() -> None:
    watch = MonotonicWatch()
    power, old = Obis(1, 0, 16, 7, 0, 255), Obis(1, 0, 1, 8, 0, 3)
    for value in (5, 4, 3):
        assert watch.check([reading(value, obis=power), reading(value, obis=old)]) == []
    assert not is_cumulative(Obis(1, 0, 16, 8, 0, 255))
    assert is_cumulative(Obis(7, 0, 3, 0, 0, 255))
    assert is_cumulative(Obis(6, 0, 2, 0, 0, 255))  # a heat meter's volume
    assert not is_cumulative(Obis(8, 0, 2, 0, 0, 255))  # a water meter's flow
    assert is_cumulative(Obis(0, 1, 24, 2, 1, 255))
    row = Reading("x", IMPORT, 5, record={"period": 0})
    assert watch.check([reading(9), row]) == []


def test_the_watch_is_bounded() -> None:
    watch = MonotonicWatch(register_count_max=1)
    watch.check([reading(5), reading(5, obis=Obis(1, 0, 2, 8, 0, 255))])
    assert watch.check([reading(4, obis=Obis(1, 0, 2, 8, 0, 255))]) == []
    assert len(watch.check([reading(4)])) == 1


@pytest.mark.parametrize(
    ("constant", "pulses", "value"), [(1000, 1, 1000), (800, 3, 3750), (10_000, 7, 700), (3, 1, 333_333)]
)
def test_pulses_are_exact(constant: int, pulses: int, value: int) -> None:
    meter = PulseInput("1ABC0000000001", constant)
    for n in range(pulses):
        meter.count(float(n))
    out = meter.reading(RECEIVED)
    assert (out.value, out.scaler, out.unit) == (value, -3, 30)


def test_flooring_does_not_add_up() -> None:
    meter = PulseInput("m", 7)
    values = [0]
    for n in range(100):
        meter.count(float(n))
        values.append(int(meter.reading().value or 0))
    assert values == sorted(values)
    assert values[-1] == 100 * 1_000_000 // 7


def test_bounce_is_not_counted() -> None:
    meter = PulseInput("m", 1000)
    assert [meter.count(t) for t in (0.0, 0.01, 0.06, 0.1, 0.12)] == [1, 0, 1, 0, 1]
    assert meter.count(1.0, 2) == 2
    assert meter.bounce_count == 2


def test_an_impulse_and_what_nothing_vouches_for_are_refused_for_billing() -> None:
    meter = PulseInput("m", 1000)
    assert meter.reading().quality is Quality.NOT_FOR_BILLING
    assert not is_billable(meter.reading())
    billable = {quality for quality in Quality if is_billable(Reading("m", IMPORT, 1, quality=quality))}
    assert billable == {Quality.VALID}


def test_a_constant_is_positive() -> None:
    with pytest.raises(LocalProtocolError):
        PulseInput("m", 0)


async def test_pulses_from_a_line(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = memory_stream_one_way_pair()
    got: list[int] = []

    async def take() -> None:
        async for batch in listen(receive, PulseInput("m", 1000), clock=trio.current_time):
            got.extend(int(r.value or 0) for r in batch if isinstance(r, Reading))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        for pause_s in (1.0, 0.01, 1.0):
            await trio.sleep(pause_s)
            await send.send_all(b"\x00")
        await send.aclose()
    assert got == [1000, 2000]
