"""The way in for files and captures, called alike for every protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from node.lmn.iec62056_21 import readings
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading


def decode_stream(chunks: Iterable[bytes]) -> Iterator[Reading | RemoteProtocolError]:
    """The readings of every readout in the stream, and an error for each stretch that is none; no keys here."""
    return readings.decode_stream(chunks)
