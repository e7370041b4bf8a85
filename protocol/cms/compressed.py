"""CompressedData with zlib (section 5.3.4, RFC 3274): bounded in what it may become before it is taken in."""

from __future__ import annotations

import zlib

from protocol.cms.structures import (
    DATA,
    CompressedData,
    Limits,
    has_parameters,
    load,
    reading,
    require,
)
from protocol.errors import RemoteProtocolError

_ZLIB = "1.2.840.113549.1.9.16.3.8"  # id-alg-zlibCompress
_WHAT = "CompressedData (RFC 3274, 1.1)"


def compress(content: bytes) -> bytes:
    """Plain data as CompressedData, DER."""
    fields = {
        "version": 0,
        "compression_algorithm": {"algorithm": _ZLIB},
        "encap_content_info": {"content_type": DATA, "content": zlib.compress(content, 9)},
    }
    return bytes(CompressedData(fields).dump())


def decompress(data: bytes, limits: Limits) -> bytes:
    """
    The data that CompressedData holds.

    Raises RemoteProtocolError: `cms_malformed`, `cms_too_large` (size or ratio), `cms_profile`, `cms_algorithm`,
    `cms_compression`.
    """
    message = load(CompressedData, data, limits, _WHAT)
    with reading(_WHAT):
        require(message["version"].native == 0, f"version {message['version'].native}, expected 0 (RFC 3274, 1.1)")
        algorithm, info = message["compression_algorithm"], message["encap_content_info"]
        oid, content_type, packed = algorithm["algorithm"].dotted, info["content_type"].dotted, bytes(info["content"])
        plain = not has_parameters(algorithm)
    if oid != _ZLIB:
        raise RemoteProtocolError("cms_algorithm", f"compression {oid} (table 5.3)")
    require(plain, "the compression algorithm has parameters (RFC 3274, 2)")
    require(content_type == DATA, f"compressed content of type {content_type}, expected id-data (table 5.3)")
    size_max = min(limits.content_size, limits.ratio * len(packed))
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, size_max + 1)
    except zlib.error:
        raise RemoteProtocolError("cms_compression", "not a zlib stream (RFC 1950)") from None
    if len(content) > size_max:
        raise RemoteProtocolError("cms_too_large", f"decompressed content over {size_max} octets")
    if not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
        raise RemoteProtocolError("cms_compression", "a zlib stream that does not end where it should (RFC 1950)")
    return content
