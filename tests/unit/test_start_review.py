"""After a start: what the coordinator's last total means for the account, and when a process has ended unnoticed."""

import pytest
import trio
import trio.testing

from node.aggregation.start_review import Finding, StartReview, judge
from node.process_start import ProcessStart
from node.storage.repositories.ring_seats import RingSeat
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.rings import result_text_of
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import QUARTER_HOURS, RegistrationGrid

SUITE = StandardSuite()
SECRET = b"r" * 32
DIGEST = b"d" * 32
SEAT = RingSeat(7, 2, 3, DIGEST, SUITE.verify_key(SECRET))
ROSTER = b"\x0f"  # positions 0 to 3


def last(
    round_: int, *, epoch: int = 7, ring: int = 2, roster: bytes = ROSTER, outcome: int = wire.Outcome.OPENED
) -> wire.LastContribution:  # fmt: skip
    signature = SUITE.sign(SUITE.signing_key(SECRET), result_text_of(DIGEST, ring, round_, outcome, roster))
    return wire.LastContribution(7, 5, 1, epoch, ring, round_, 900 * round_, roster, signature, bytes(64))


NONE = wire.LastContribution(7, 5, 1, -1, 0, -1, 0, b"", b"", bytes(64))


@pytest.mark.parametrize(
    ("answer", "own", "seat", "finding"),
    [
        (last(5), (7, 5), SEAT, Finding.INCLUDED),
        (last(4), (7, 5), SEAT, Finding.NOT_INCLUDED),
        (last(90, epoch=6), (7, 5), None, Finding.NOT_INCLUDED),
        (NONE, (7, 5), None, Finding.NOT_INCLUDED),
        (NONE, None, None, Finding.NOT_INCLUDED),
        (last(6), (7, 5), SEAT, Finding.STORE_IS_OLD),
        (last(0, epoch=8), (7, 5), None, Finding.STORE_IS_OLD),
        (last(5), (6, 95), None, Finding.STORE_IS_OLD),
        (last(5), None, None, Finding.STORE_IS_OLD),
        (last(5), None, SEAT, Finding.STORE_IS_OLD),
    ],
    ids=[
        "equal", "older", "older epoch", "none", "none of none", "newer", "newer epoch", "unknown epoch", "no account",
        "account moved away",
    ],
)  # fmt: skip
def test_the_last_total_is_held_against_the_last_contribution(
    answer: wire.LastContribution, own: tuple[int, int] | None, seat: RingSeat | None, finding: Finding
) -> None:
    assert judge(answer, own, seat, SUITE) is finding


@pytest.mark.parametrize("round_", [5, 6])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"roster": b"\x07"}, "not_included"), ({"outcome": wire.Outcome.VOID}, "forged_result"),
        ({"ring": 1}, "forged_result"),
    ],
    ids=["a roster without us", "a void round", "another ring"],
)  # fmt: skip
def test_a_last_total_that_the_seat_shows_to_be_false_is_refused(
    round_: int, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        judge(last(round_, **change), (7, 5), SEAT, SUITE)  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_a_signature_over_another_round_is_refused() -> None:
    honest = last(5)
    answer = wire.LastContribution(7, 5, 1, 7, 2, 6, 5400, ROSTER, honest.signature, bytes(64))
    with pytest.raises(RemoteProtocolError, match="forged_result"):
        judge(answer, (7, 5), SEAT, SUITE)


class Clocks:
    """Real time, monotonic time and a process id that a test sets."""

    def __init__(self) -> None:
        self.real, self.monotonic, self.process = 1_000_000.0, 50.0, 100

    def start(self) -> ProcessStart:
        return ProcessStart(lambda: self.real, lambda: self.monotonic, lambda: self.process)

    def pass_time(self, seconds: float) -> None:
        self.real += seconds
        self.monotonic += seconds


@pytest.mark.parametrize(("jump_s", "is_over"), [(0, False), (29, False), (-29, False), (31, True), (-31, True)])
def test_a_clock_that_jumps_by_over_30_s_is_a_start(jump_s: float, *, is_over: bool) -> None:
    clocks = Clocks()
    start = clocks.start()
    clocks.pass_time(90_000)
    assert not start.is_over()
    clocks.real += jump_s
    assert start.is_over() is is_over


def test_a_machine_that_stood_still_is_a_start() -> None:
    clocks = Clocks()
    start = clocks.start()
    clocks.real += 3_600  # CLOCK_MONOTONIC does not count a suspend
    assert start.is_over()


def test_steps_of_the_clock_that_add_up_are_a_start() -> None:
    clocks = Clocks()
    start = clocks.start()
    for _ in range(4):
        clocks.real += 10
    assert start.is_over()


def test_a_fork_is_a_start() -> None:
    clocks = Clocks()
    start = clocks.start()
    clocks.process += 1
    assert start.is_over()


async def test_whoever_waits_for_the_next_start_is_woken(autojump_clock: trio.testing.MockClock) -> None:
    clocks = Clocks()
    start = clocks.start()

    async def jump() -> None:
        await trio.sleep(10)
        clocks.real -= 60

    async with trio.open_nursery() as nursery:
        nursery.start_soon(jump)
        await start.wait_until_over()
    assert 10 <= trio.current_time() < 12


LAPSE = RegistrationGrid(start_ms=999_990_000, period_ms=5_000, metering_start_s=900 * 1000, interval_s=900)


@pytest.mark.parametrize(
    ("grid", "first_s"),
    [(QUARTER_HOURS, 1_000_800), (LAPSE, 900 * 1003)],
    ids=["quarter hours", "time lapse"],
)
def test_no_interval_is_permitted_that_began_before_the_start(grid: RegistrationGrid, first_s: int) -> None:
    clocks = Clocks()
    review = StartReview(clocks.start())
    review.is_done = True
    assert not review.permits(first_s)  # nobody knows yet when registration periods begin
    review.use_grid(grid)
    assert review.permits(first_s)
    assert review.permits(first_s + 900)
    assert not review.permits(first_s - 900)
    review.is_done = False
    assert not review.permits(first_s)
    review.is_done = True
    clocks.real -= 45
    assert not review.permits(first_s)
