"""A byte stream of SML, whole or in pieces, to readings and errors: what `stromkreis decode sml` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from node.lmn.sml.readings import frame_readings
from node.lmn.sml.transport import Frame, FrameError, TransportReader
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading


def decode_stream(chunks: Iterable[bytes]) -> Iterator[Reading | RemoteProtocolError]:
    """
    The readings of every telegram in the stream, and an error for each stretch that is none.

    An error's `offset` counts from the stream's first byte: of the frame where its check sum is wrong, of the spot
    inside it (not counting the frame's own escapes) where its content is.
    """
    reader = TransportReader()
    for chunk in chunks:
        yield from _items(reader.feed(chunk))
    yield from _items(reader.end())


def _items(frames: Iterable[Frame | FrameError]) -> Iterator[Reading | RemoteProtocolError]:
    for frame in frames:
        if isinstance(frame, FrameError):
            yield frame
            continue
        try:
            yield from frame_readings(frame.payload)
        except RemoteProtocolError as error:
            offset = frame.offset + 8 + (error.offset or 0)
            yield RemoteProtocolError(error.reason, error.detail, offset=offset)
