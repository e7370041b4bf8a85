"""A recorded wired bus to readings, for `stromkreis decode mbus` and for eyes: every frame, every fault, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from node.lmn.mbus.link import Frame, FrameReader, LongFrame
from node.lmn.mbus.telegram import decode_telegram
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading


def decode_stream(
    chunks: Iterable[bytes],
    keys: Mapping[str, bytes] | bytes | None = None,  # noqa: ARG001 -- the command line calls all protocols alike
) -> Iterator[Reading | RemoteProtocolError]:
    """
    Readings and errors out of the bytes of a bus, however they are cut.

    Acknowledgements and the primary's own frames are passed over; memory is bounded by one frame and one chunk.
    """
    reader = FrameReader()
    for chunk in chunks:
        for event in reader.feed(chunk):
            yield from _decoded(event)
    for event in reader.finish():
        yield from _decoded(event)


def _decoded(event: Frame | RemoteProtocolError) -> Iterator[Reading | RemoteProtocolError]:
    if isinstance(event, RemoteProtocolError):
        yield event
    elif isinstance(event, LongFrame):
        try:
            yield from decode_telegram(event)
        except RemoteProtocolError as error:
            yield error
