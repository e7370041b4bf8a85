"""The fuzzers' invariant, in CI too: recorded telegrams and any bytes, bare and dressed, for every codec."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.invariant import CODECS, Codec, hold, own_seeds, seeds
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

CORPORA = Path(__file__).parents[2] / "../shared/corpora"
NAMES = sorted(CODECS)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    hold(CODECS[name], data)


@pytest.mark.beside_repository
@pytest.mark.parametrize("name", NAMES)
def test_recorded_telegrams_and_their_damage(name: str) -> None:
    check_damaged(name, list(seeds(CODECS[name], CORPORA))[::5])


@pytest.mark.parametrize("name", NAMES)
def test_our_own_telegrams_and_their_damage(name: str) -> None:
    own = list(own_seeds(name))
    assert own
    check_damaged(name, own)


def check_damaged(name: str, telegrams: list[bytes]) -> None:
    for seed in telegrams:
        middle = len(seed) // 2
        for data in (seed, seed[:middle], seed[middle:] + seed, seed[:middle] + b"\xff" + seed[middle + 1 :]):
            hold(CODECS[name], data)


@pytest.mark.parametrize("name", NAMES)
def test_dressed_inputs_get_past_the_check_sums(name: str) -> None:
    """Else the fuzzer would knock at a door for ever: no dress may end in a check sum's error."""
    codec = CODECS[name]
    for dress in codec.dress:
        for item in codec.decode([dress(b"\x01\x02 1-0:1.8.0(1*kWh)\r\n")]):
            assert not isinstance(item, RemoteProtocolError) or not {"crc", "fcs", "hcs", "checksum", "key"} & set(
                item.reason.split("_")
            )


def test_a_decoder_that_shows_how_it_was_fed_or_raises_is_found() -> None:
    by_piece = Codec(lambda chunks: (Reading("x", None, len(chunk)) for chunk in chunks), (bytes,), ())
    with pytest.raises(AssertionError):
        hold(by_piece, b"abc")
    raising = Codec(lambda chunks: (Reading("x", None, chunk[1000]) for chunk in chunks), (bytes,), ())
    with pytest.raises(IndexError):
        hold(raising, b"abc")
