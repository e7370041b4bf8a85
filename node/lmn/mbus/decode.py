"""A recorded wired bus to readings, for `stromkreis decode mbus` and for eyes: every frame, every fault, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from node.lmn.mbus.keys import KeyStore
from node.lmn.mbus.link import Frame, FrameReader, LongFrame
from node.lmn.mbus.receiver import LayerReceiver
from node.lmn.mbus.telegram import Opener, decode_telegram
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading


def decode_stream(
    chunks: Iterable[bytes],
    keys: Mapping[str, bytes] | bytes | None = None,
) -> Iterator[Reading | RemoteProtocolError]:
    """
    Readings and errors out of the bytes of a bus, however they are cut.

    `keys`: meter number (14 characters or the last eight) to key, or one key for all, for the rare wired meters that
    encrypt.
    Acknowledgements and the primary's own frames are passed over; memory is bounded by one frame and one chunk.
    """
    reader = FrameReader()
    opener = LayerReceiver(KeyStore.of(keys), accept_decrypted=True, check_counters=False)
    for chunk in chunks:
        for event in reader.feed(chunk):
            yield from _decoded(event, opener)
    for event in reader.finish():
        yield from _decoded(event, opener)


def _decoded(event: Frame | RemoteProtocolError, opener: Opener) -> Iterator[Reading | RemoteProtocolError]:
    if isinstance(event, RemoteProtocolError):
        yield event
    elif isinstance(event, LongFrame):
        try:
            yield from decode_telegram(event, opener=opener)
        except RemoteProtocolError as error:
            yield error
