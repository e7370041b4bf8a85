"""A fleet's masks are those of its gateways by themselves, to the byte, whoever lives in it and whoever asks first."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from loadtest.ring import RingSize, lay_out
from loadtest.simulator.suite import CheapSuite
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines import masks
from protocol.dcnet.machines.masks import Fleet, MaskSchedule
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.secrets import EpochSecrets

N, ROUNDS, WORDS = 7, 6, 5
SUITES: tuple[CheapSuite | StandardSuite, ...] = (CheapSuite(), StandardSuite())


def bound(suite: CheapSuite | StandardSuite, k: int) -> tuple[RingView, list[EpochSecrets]]:
    view, secrets = lay_out(suite, RingSize(N, k, 3, 3, 3, 4, words=WORDS, rounds=ROUNDS), bytes(32))
    for position, each in enumerate(secrets):
        each.bind(view, position)
    return view, secrets


RINGS = {(number, k): bound(suite, k) for number, suite in enumerate(SUITES) for k in (2, 4, 6)}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["prepare", "share", "retry", "join", "leave"]), st.integers(0, N - 1),
        st.integers(0, ROUNDS - 1), st.integers(0, 2**N - 1),
    ), max_size=40,
)  # fmt: skip


@given(
    ring=st.sampled_from(sorted(RINGS)), steps=STEPS, here=st.sets(st.integers(0, N - 1), min_size=1),
    block_bytes=st.sampled_from([1, 96, 144, 1 << 16]), piece_words=st.sampled_from([2, 4, 10, 1 << 14]),
)  # fmt: skip
def test_a_gateway_of_a_fleet_has_the_words_that_it_would_have_alone(
    ring: tuple[int, int],
    steps: list[tuple[str, int, int, int]],
    here: set[int],
    block_bytes: int,
    piece_words: int,
) -> None:
    """Blocks and pieces of any size, rounds in any order, further attempts, missing ones, gateways that restart."""
    suite = SUITES[ring[0]]
    view, secrets = RINGS[ring]
    alone = [MaskSchedule(suite, view, each) for each in secrets]
    with patch.object(masks, "_BLOCK_BYTES", block_bytes), patch.object(masks, "_PIECE_WORDS", piece_words):
        fleet = Fleet()
        living = {position: MaskSchedule(suite, view, secrets[position], fleet) for position in here}
        for what, position, round_, others in steps:
            if what == "join":
                living[position] = MaskSchedule(suite, view, secrets[position], fleet)
            elif position not in living:
                continue
            elif what == "leave":
                del living[position]
            elif what == "prepare":
                living[position].prepare(round_)
            else:
                attempt = int(what == "retry")
                mine = living[position].words(round_, attempt, others)
                assert mine.tobytes() == alone[position].words(round_, attempt, others).tobytes()
        for position, schedule in living.items():
            for round_ in range(ROUNDS):
                mine = schedule.words(round_, 0, view.everybody)
                assert mine.tobytes() == alone[position].words(round_, 0, view.everybody).tobytes()
