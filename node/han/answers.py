"""
Contents of answers: the envelope of exports with its signature, CSV, and which type a client takes.

What is signed is the canonical form of section 6.9: the octets of `data` as they are sent, without white space between
JSON components.  We send none, so whoever checks takes them from the answer as they are; who has pretty-printed the
answer drops CR, LF, TAB and SPACE between components first (`canonical`).
"""

from __future__ import annotations

import base64
import csv
import io
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel

from node.han.query import DETACHED
from protocol import cms
from protocol.errors import LocalProtocolError

JSON: Final = "application/json"
CSV: Final = "text/csv"
XML: Final = "application/xml"


def accepted(header: str | None, offered: tuple[str, ...]) -> str | None:
    """
    The type to answer in, the first one where the header leaves it open; None where the client takes none of them.

    REQ.Webservice.HttpServer.240, .250; RFC 9110, 12.5.1.
    """
    if header is None or not header.strip():
        return offered[0]
    weights: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            weights[name] = float(quality)
        except ValueError:
            weights[name] = 0.0

    def weight(kind: str) -> float:
        names = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        return next((weights[each] for each in names if each in weights), 0.0)

    best = max(offered, key=weight)  # the first one among equals
    return best if weight(best) > 0 else None


def envelope(kind: str, resource: str, data: BaseModel, key: cms.SignatureKey | None) -> bytes:
    """
    An export: `type`, `id`, `data`, and with a key the detached CMS signature over the canonical octets of `data`.

    Raises LocalProtocolError for a key that does not sign with SHA-256.
    """
    signed = data.model_dump_json().encode()
    parts = [b'{"type":"', kind.encode(), b'","id":"', resource.encode(), b'","data":', signed]
    if key is not None:
        public_key = key.certificate.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey) or public_key.curve.key_size > 256:
            raise LocalProtocolError(f"{DETACHED} wants a key of 256 bits")
        signature = base64.b64encode(cms.sign_detached(signed, key))
        parts += [b',"signature":{"algorithm":"', DETACHED.encode(), b'","value":"', signature, b'"}']
    return b"".join([*parts, b"}"])


def canonical(text: bytes) -> bytes:
    """JSON without CR, LF, TAB and SPACE between its components (section 6.9)."""
    out, in_string, is_escaped = bytearray(), False, False
    for octet in text:
        if not in_string and octet in b"\r\n\t ":
            continue
        out.append(octet)
        if in_string:
            is_string_end = octet == 0x22 and not is_escaped
            is_escaped = octet == 0x5C and not is_escaped
            in_string = not is_string_end
        else:
            in_string = octet == 0x22
    return bytes(out)


def as_csv(export: BaseModel) -> bytes:
    """The records of an export: a line of names, then a line each; UTF-8, CRLF (RFC 4180)."""
    document = export.model_dump(mode="json")
    records = document["records"]
    text = io.StringIO()
    columns = list(records[0]) if records else []
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for each in records:
        writer.writerow({name: _harmless(value) for name, value in each.items()})
    return text.getvalue().encode()


def _harmless(value: object) -> object:
    """A text that a spreadsheet would take for a formula, with an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "@", "+", "\t"} else value
