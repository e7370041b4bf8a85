"""
BER to definite lengths, with bounds, before any parser sees it.

CMS is BER (RFC 5652 section 1): senders that stream write indefinite lengths and cut strings into pieces.  Everything
received is brought into one form first: definite lengths of the shortest form, OCTET STRINGs in one piece.  Depth and
number of elements are counted here, so that no parser behind meets nesting or a number of elements without a bound.
"""

from __future__ import annotations

from protocol.errors import RemoteProtocolError

_OCTET_STRING, _OCTET_STRING_IN_PIECES = 0x04, 0x24
_CONTEXT_0, _CONTEXT_0_CONSTRUCTED, _SEQUENCE = 0x80, 0xA0, 0x30
_CONSTRUCTED, _LONG_TAG = 0x20, 0x1F
_INDEFINITE = 0x80
_DEPTH_MAX = 32  # of what went through `to_definite` before
_LENGTH_SIZE_MAX = 4  # octets of a length: 4 GiB, more than any bound on a message


def encode(tag: int, value: bytes) -> bytes:
    """One DER element of a tag below 31."""
    size = len(value)
    if size < _INDEFINITE:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _INDEFINITE | len(length))) + length + value


def to_definite(data: bytes, *, depth_max: int, elements_max: int) -> bytes:
    """
    The one element that `data` is, with definite lengths and strings in one piece.

    Raises RemoteProtocolError `cms_malformed` for anything else than one whole element, `cms_too_large` past a bound.
    """
    reader = _Reader(data, depth_max, elements_max)
    element, end = reader.element(0, len(data), 1)
    if end != len(data):
        raise RemoteProtocolError("cms_malformed", "octets after the end of the message", offset=end)
    return element


def children(value: bytes) -> list[bytes]:
    """The elements that the value of a constructed element is made of, as `to_definite` leaves them."""
    reader, found, at = _Reader(value, _DEPTH_MAX, len(value)), [], 0
    while at < len(value):
        element, at = reader.element(at, len(value), 1)
        found.append(element)
    return found


def value_of(element: bytes) -> bytes:
    """The value of a definite element."""
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def is_one_element(data: bytes) -> bool:
    """Whether definite elements, as `to_definite` leaves them, are one."""
    if len(data) < 2:
        return False
    count = data[1] & 0x7F if data[1] & 0x80 else 0
    size = int.from_bytes(data[2 : 2 + count], "big") if count else data[1]
    return len(data) == 2 + count + size


class _Reader:
    def __init__(self, data: bytes, depth_max: int, elements_max: int) -> None:
        self._data = data
        self._depth_max = depth_max
        self._elements_left = elements_max

    def element(self, at: int, end: int, depth: int) -> tuple[bytes, int]:
        """The element at `at`, which must end by `end`, and where it does."""
        self._elements_left -= 1
        if self._elements_left < 0:
            raise RemoteProtocolError("cms_too_large", "more elements than admitted", offset=at)
        if depth > self._depth_max:
            raise RemoteProtocolError("cms_too_large", f"nested deeper than {self._depth_max}", offset=at)
        if end - at < 2:
            raise RemoteProtocolError("cms_malformed", "an element is cut off", offset=at)
        tag = self._data[at]
        if tag & _LONG_TAG == _LONG_TAG:
            raise RemoteProtocolError("cms_malformed", "a tag above 30, which CMS has not", offset=at)
        size, begin = self._length(at + 1, end)
        if size is not None and begin + size > end:
            raise RemoteProtocolError("cms_malformed", "an element is longer than what holds it", offset=at)
        if tag & _CONSTRUCTED:
            return self._constructed(tag, begin, end if size is None else begin + size, size is None, depth)
        if size is None:
            raise RemoteProtocolError("cms_malformed", "a primitive element of indefinite length", offset=at)
        return encode(tag, self._data[begin : begin + size]), begin + size

    def _length(self, at: int, end: int) -> tuple[int | None, int]:
        first = self._data[at]
        if first < _INDEFINITE:
            return first, at + 1
        if first == _INDEFINITE:
            return None, at + 1
        count = first & 0x7F
        if count > _LENGTH_SIZE_MAX or at + 1 + count > end:
            raise RemoteProtocolError("cms_malformed", "a length that cannot be", offset=at)
        return int.from_bytes(self._data[at + 1 : at + 1 + count], "big"), at + 1 + count

    def _constructed(self, tag: int, at: int, end: int, indefinite: bool, depth: int) -> tuple[bytes, int]:
        parts: list[bytes] = []
        while indefinite or at < end:
            if indefinite and self._data[at : at + 2] == b"\0\0" and at + 2 <= end:
                at += 2
                break
            part, at = self.element(at, end, depth + 1)
            after_algorithm = bool(parts) and parts[-1][0] == _SEQUENCE
            parts.append(_joined_content(part, depth, self._depth_max) if after_algorithm else part)
        if tag == _OCTET_STRING_IN_PIECES:
            return encode(_OCTET_STRING, _join(parts)), at
        return encode(tag, b"".join(parts)), at


def _joined_content(element: bytes, depth: int, depth_max: int) -> bytes:
    """
    Content in pieces, encryptedContent [0] IMPLICIT OCTET STRING, in one.

    Its place tells it from eContent, [0] EXPLICIT: it follows an AlgorithmIdentifier, and nothing else in CMS that does
    is made of OCTET STRINGs.
    """
    if element[0] != _CONTEXT_0_CONSTRUCTED:
        return element
    body, pieces, at = value_of(element), [], 0
    reader = _Reader(body, depth_max, len(body))
    while at < len(body):
        if body[at] != _OCTET_STRING:
            return element
        piece, at = reader.element(at, len(body), depth)
        pieces.append(piece)
    return encode(_CONTEXT_0, _join(pieces)) if pieces else element


def _join(pieces: list[bytes]) -> bytes:
    if any(piece[0] != _OCTET_STRING for piece in pieces):
        raise RemoteProtocolError("cms_malformed", "an OCTET STRING in pieces that are none")
    return b"".join(map(value_of, pieces))
