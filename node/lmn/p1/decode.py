"""
The way in for files and captures: a P1 telegram is a mode D readout (DSMR P1 companion standard 5.0.2 clause 5).

With a key the telegrams are encrypted ones, and plain ones are not believed; see `encrypted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from node.lmn.iec62056_21 import readings
from node.lmn.iec62056_21.framing import CIPHERED_HEAD_SIZE, ciphered_size
from node.lmn.iec62056_21.readings import Interpretation
from node.lmn.p1.encrypted import BEGINNING, EncryptedReader
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

_PEEK_SIZE: Final = 128  # an identification, the empty line and the head of what follows


def decode_stream(
    chunks: Iterable[bytes], key: bytes | None = None, *, medium: int = 1
) -> Iterator[Reading | RemoteProtocolError]:
    """
    The readings of every telegram in the stream, and an error for each stretch that is none.

    `key` is the encryption key (16 bytes; the authentication key is that of all Luxembourg meters, or not known) or
    encryption and authentication key together (32 bytes).  `medium` is OBIS group A of
    addresses that leave it out.  Local times have no offset.  Raises LocalProtocolError for a key of another length.
    """
    how = Interpretation(medium=medium, local_times=True)
    if key is not None:
        pieces, untitled = _peek(chunks)
        found = readings.decode_stream(pieces, how, reader=EncryptedReader(key))
        if untitled:
            yield RemoteProtocolError(
                "title_missing", "a ciphered telegram that does not name its system title cannot be opened", offset=0
            )
            next(found, None)  # the same octets, as noise
        yield from found
        return
    pieces = iter(chunks)
    head = b""
    while len(head) < len(BEGINNING) and (piece := next(pieces, None)) is not None:
        head += piece
    if head.startswith(BEGINNING):
        yield RemoteProtocolError("key_missing", "an encrypted telegram, and no key", offset=0)
    yield from readings.decode_stream(chain((head,), pieces), how)


def _peek(chunks: Iterable[bytes]) -> tuple[Iterator[bytes], bool]:
    """The same stream, and whether it begins with a ciphered telegram behind a plain identification."""
    pieces, head = iter(chunks), b""
    while len(head) < _PEEK_SIZE and (piece := next(pieces, None)) is not None:
        head += piece
    peeked = head[:_PEEK_SIZE]  # the same however large the first piece was
    _, empty_line, rest = peeked.partition(b"\r\n\r\n")
    return chain((head,), pieces), bool(peeked[:1] == b"/" and empty_line and ciphered_size(rest[:CIPHERED_HEAD_SIZE]))
