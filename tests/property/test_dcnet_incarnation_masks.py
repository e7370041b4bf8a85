"""Masks cancel whoever was started anew and when, are those of a schedule made from nothing, and are used only once."""

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.ring import RingSize, lay_out, nonce, opening
from loadtest.signing import SignedNonces
from loadtest.simulator.suite import CheapSuite
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines import masks
from protocol.dcnet.machines.masks import Fleet, MaskSchedule
from protocol.dcnet.setup.rings import RingView, positions_of
from protocol.dcnet.setup.secrets import EpochSecrets

N, ROUNDS, WORDS = 6, 8, 5
SUITES: tuple[CheapSuite | StandardSuite, ...] = (CheapSuite(), StandardSuite())


def bound(suite: CheapSuite | StandardSuite, k: int) -> tuple[RingView, list[EpochSecrets]]:
    size = RingSize(N, k, 3, 3, 3, 4, words=WORDS, rounds=ROUNDS, committed=(1, 3))
    view, secrets = lay_out(suite, size, bytes(32))
    for position, each in enumerate(secrets):
        each.bind(view, position)
    return view, secrets


RINGS = {(number, k): bound(suite, k) for number, suite in enumerate(SUITES) for k in (2, 4, 5)}


@settings(deadline=None)
@given(
    ring=st.sampled_from(sorted(RINGS)), data=st.data(), block_bytes=st.sampled_from([1, 96, 144, 1 << 16]),
    fleets=st.lists(st.integers(0, 2), min_size=N, max_size=N),
)  # fmt: skip
def test_masks_cancel_after_any_restarts(
    ring: tuple[int, int], data: st.DataObject, block_bytes: int, fleets: list[int]
) -> None:
    """In each round some processes are started anew and E is any set; gateways share up to three processes."""
    suite, (view, secrets) = SUITES[ring[0]], RINGS[ring]
    group, processes = suite.group, [0] * N
    table, hosts, seen = SignedNonces(suite, view, secrets), [Fleet() for _ in range(3)], set[bytes]()
    with patch.object(masks, "_BLOCK_BYTES", block_bytes):
        living = [MaskSchedule(suite, view, secrets[i], hosts[fleets[i]]) for i in range(N)]
        for round_ in range(ROUNDS):
            for i in data.draw(st.sets(st.integers(0, N - 1), max_size=2)):
                processes[i] += 1
                own = nonce(bytes(32), i, processes[i])
                if processes[i] < 7:
                    table.newest[i] = own
                    living[i] = MaskSchedule(suite, view, secrets[i], hosts[fleets[i]], own)
            for i in data.draw(st.sets(st.integers(0, N - 1))):
                living[i].prepare(round_)
            attempt, expected = data.draw(st.integers(0, 1)), data.draw(st.integers(1, 2**N - 1))
            message = opening(view, 0, round_, attempt, expected, nonces=table)
            sums, scalars = [0] * WORDS, [0, 0]
            for i in positions_of(expected):
                living[i].incarnation.check_open(message)
                living[i].use(message)
                mine, theirs = (
                    living[i].words(round_, attempt, expected),
                    living[i].blindings(round_, attempt, expected),
                )
                fresh = MaskSchedule(suite, view, secrets[i], nonce=living[i].incarnation.nonce)
                fresh.use(message)
                assert mine.tobytes() == fresh.words(round_, attempt, expected).tobytes()
                sums = [(a + int(b)) % 2**64 for a, b in zip(sums, mine, strict=True)]
                scalars = [(a + b) % group.order for a, b in zip(scalars, theirs, strict=True)]
                if view.neighbourhoods[i] & expected:
                    assert mine.tobytes() not in seen
                    seen.add(mine.tobytes() if view.k > 2 else mine.tobytes() + bytes([i]))
            assert sums == [0] * WORDS
            assert scalars == [0, 0]
