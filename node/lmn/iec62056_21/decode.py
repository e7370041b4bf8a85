"""The way in for files and captures, called alike for every protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from node.lmn.iec62056_21 import readings
from node.lmn.iec62056_21.readings import Interpretation
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading


def decode_stream(chunks: Iterable[bytes], *, medium: int = 1) -> Iterator[Reading | RemoteProtocolError]:
    """
    The readings of every readout in the stream, and an error for each stretch that is none; no keys here.

    `medium` is OBIS group A of addresses that leave it out.  Local times have no offset.
    """
    return readings.decode_stream(chunks, Interpretation(medium=medium, local_times=True))
