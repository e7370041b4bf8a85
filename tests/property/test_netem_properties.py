"""Whatever the scenario and the stream: states are well formed, bytes arrive whole and in order, memory is bounded."""

from random import Random

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_one_way_pair, memory_stream_pair

from netem.delay import DelayLine, StreamLine
from netem.network import load_network
from netem.nfqueue import QueuedPacket, VerdictScheduler
from netem.profiles import Direction, load_profiles
from netem.scenario import Scenario, initial_state, timeline
from netem.stream import limit_bytes, transfer

PROFILES = load_profiles()
NETWORK = load_network("two-areas")

directions = st.builds(
    lambda delay_s, share, loss, rate, queue_s: Direction(
        delay_s=delay_s, jitter_s=delay_s * share, loss=loss, rate_bit_s=rate, queue_s=queue_s
    ),
    st.floats(0, 2),
    st.floats(0, 1),
    st.floats(0, 0.5),
    st.none() | st.integers(8_000, 1_000_000_000),
    st.floats(0.01, 5),
)
targets = st.sampled_from(["all", "coordinator", "first-area", "area:south", "endpoint:north-1", "share:0.5"])
moments = st.integers(0, 100)
durations = st.none() | st.integers(1, 200)
events = st.one_of(
    st.fixed_dictionaries(
        {"action": st.sampled_from(["cut", "partition"]), "at_s": moments, "target": targets, "duration_s": durations}
    ),
    st.fixed_dictionaries({"action": st.just("heal"), "at_s": moments, "target": targets}),
    st.fixed_dictionaries(
        {
            "action": st.just("flap"), "at_s": moments, "target": targets, "period_s": st.integers(1, 50),
            "down_share": st.floats(0.01, 0.99), "count": st.integers(1, 9),
        }
    ),
    st.fixed_dictionaries(
        {
            "action": st.just("degrade"), "at_s": moments, "target": targets, "duration_s": durations,
            "delay_factor": st.floats(0, 100), "rate_factor": st.floats(0.001, 10), "loss": st.floats(0, 0.9),
        }
    ),
)  # fmt: skip


@given(st.lists(events, max_size=8), st.integers(0, 9))
def test_a_timeline_is_in_order_complete_and_ends_healed(drawn: list[dict[str, object]], seed: int) -> None:
    scenario = Scenario.model_validate({"duration_s": 100, "events": drawn})
    steps = list(timeline(scenario, NETWORK, PROFILES, rng=Random(seed)))
    healed = initial_state(NETWORK, PROFILES)
    moments_s = [step.at_s for step in steps]
    assert moments_s == sorted(set(moments_s))
    assert (moments_s[0], moments_s[-1]) == (0, 100)
    assert steps[-1].state == healed
    for step in steps:
        assert step.state.keys() == healed.keys()
        for link in step.state.values():
            for direction in (link.profile.up, link.profile.down):
                assert 0 <= direction.loss < 1
                assert direction.jitter_s <= direction.delay_s <= 60


class Tally:
    """How many bytes are in flight, from what went in and what came out."""

    def __init__(self) -> None:
        self.read = self.delivered = self.most = 0

    def took(self, size: int) -> None:
        self.read += size
        self.most = max(self.most, self.read - self.delivered)

    def gave(self, size: int) -> None:
        self.delivered += size


class CountedSource(trio.abc.ReceiveStream):
    """Given chunks, then the end; tells a tally what is taken."""

    def __init__(self, data: bytes, tally: Tally) -> None:
        self._data, self._tally = data, tally

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        chunk, self._data = self._data[:max_bytes], self._data[max_bytes:]
        self._tally.took(len(chunk))
        return chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@settings(max_examples=40, deadline=None)
@given(directions, directions, st.integers(0, 60_000), st.lists(st.integers(1, 40), max_size=4), st.integers(0, 99))
def test_a_stream_is_whole_in_order_and_bounded_through_any_lines_and_cuts(
    first: Direction, second: Direction, size: int, cuts_s: list[int], seed: int
) -> None:
    data = Random(seed).randbytes(size)
    tally, got = Tally(), bytearray()

    async def main() -> None:
        lines = StreamLine(first, Random(seed)), StreamLine(second, Random(seed + 1))
        sink, sink_receive = memory_stream_pair()
        is_open, changed = True, trio.Event()

        async def wait_open() -> None:
            while not is_open:
                await changed.wait()

        async def cut_and_heal() -> None:
            nonlocal is_open, changed
            for cut_s in cuts_s:
                is_open, changed = False, trio.Event()
                await trio.sleep(cut_s)
                is_open = True
                changed.set()
                await trio.sleep(1)

        async def take() -> None:
            async for chunk in sink_receive:
                got.extend(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_and_heal)
            nursery.start_soon(take)
            nursery.start_soon(transfer, CountedSource(data, tally), sink, lines, wait_open, tally.gave)
        assert tally.most <= limit_bytes(lines) + (1 << 16)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert bytes(got) == data


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 0.1)), max_size=60),
    st.lists(directions, min_size=8, max_size=8),
    st.integers(0, 99),
)
def test_every_packet_gets_one_verdict_in_the_order_of_its_path(
    arrivals: list[tuple[int, int, float]], drawn: list[Direction], seed: int
) -> None:
    ups = [DelayLine(direction, Random(seed)) for direction in drawn[:4]]
    downs = [DelayLine(direction, Random(seed)) for direction in drawn[4:]]
    scheduler = VerdictScheduler(lambda packet: [ups[packet.in_interface], downs[packet.out_interface]])
    now_s, went = 0.0, []
    for number, (source, destination, pause_s) in enumerate(arrivals):
        now_s += pause_s
        went += scheduler.due(now_s)
        scheduler.add(QueuedPacket(number, source, destination), now_s)
    while len(scheduler):
        now_s = max(now_s, scheduler.next_s)
        went += scheduler.due(now_s)
    assert sorted(went) == list(range(len(arrivals)))
    for path in {(source, destination) for source, destination, _ in arrivals}:
        on_path = [number for number in went if arrivals[number][:2] == path]
        assert on_path == sorted(on_path)


def test_sending_into_a_closed_relay_raises_an_error() -> None:
    async def main() -> None:
        source_send, source = memory_stream_one_way_pair()
        sink, sink_receive = memory_stream_pair()
        await sink_receive.aclose()
        await source_send.send_all(b"lost?")
        lines = StreamLine(Direction(), Random(1)), StreamLine(Direction(), Random(1))

        async def always_open() -> None:
            await trio.lowlevel.checkpoint()

        broke = False
        try:
            await transfer(source, sink, lines, always_open, lambda _: None)
        except* trio.BrokenResourceError:
            broke = True
        assert broke

    trio.run(main, clock=MockClock(autojump_threshold=0))
