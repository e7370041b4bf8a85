"""
Blindings of commitments are kept beside their values.

Before, they were derived from a key of the gateway that lived as long as it did: whoever found that key opened every
commitment of the past.  Those of values that wait for a bill, and of contributions that wait for their result, are
derived here for the last time; then the security module deletes the key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

import msgpack
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hmac import HMAC

from node.storage.cipher import Cipher
from node.storage.errors import SchemaError

BlindingKey = Callable[[str], bytes | None]
"""The key that an earlier release derived a gateway's blindings from; None where it has none."""

_ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of the group, RFC 8032 section 5.1
_DOMAIN: Final = b"stromkreis/1 Pedersen blinding\0"


def upgrade(connection: sqlite3.Connection, cipher: Cipher, blinding_key: BlindingKey | None = None) -> None:
    """Keep the blindings of commitments beside their values, one for each."""
    waiting = connection.execute("SELECT gateway, obis, interval_s, value FROM committed WHERE value IS NOT NULL")
    registers: dict[str, set[str]] = {}
    keys: dict[str, bytes | None] = {}
    for gateway, obis, interval_s, sealed in waiting.fetchall():
        if blinding_key is None:
            raise SchemaError(
                "its values wait for bills and need keys of their gateways: start the node, or `stromkreis db upgrade`"
            )
        registers.setdefault(gateway, set()).add(obis)
        if gateway not in keys:
            keys[gateway] = blinding_key(gateway)
        row = gateway, obis, interval_s
        if (key := keys[gateway]) is None:  # nobody can bill it any more
            connection.execute("DELETE FROM committed WHERE gateway=? AND obis=? AND interval_s=?", row)
            continue
        packed = cipher.open("committed", row, sealed) + _blinding(key, *row)
        connection.execute(
            "UPDATE committed SET value=? WHERE gateway=? AND obis=? AND interval_s=?",
            (cipher.seal("committed", row, packed), *row),
        )
    found = connection.execute("SELECT gateway, epoch, round, interval_s, content FROM contribution")
    for *row, sealed in found.fetchall():
        gateway, _, _, interval_s = row
        key = keys.get(gateway)
        # A schema names its committed registers in this order.
        names = [] if key is None else sorted(registers[gateway])
        blindings = b"".join(_blinding(key, gateway, obis, interval_s) for obis in names if key is not None)
        content = msgpack.packb((*msgpack.unpackb(cipher.open("contribution", tuple(row), sealed)), blindings))
        connection.execute(
            "UPDATE contribution SET content=? WHERE gateway=? AND epoch=? AND round=? AND interval_s=?",
            (cipher.seal("contribution", tuple(row), content), *row),
        )


def _blinding(key: bytes, gateway: str, obis: str, interval_s: int) -> bytes:
    """As the earlier release derived it, 32 bytes little-endian."""
    mac = HMAC(key, SHA512())
    mac.update(_DOMAIN + f"{gateway} {obis} {interval_s}".encode())
    return (int.from_bytes(mac.finalize(), "little") % _ORDER).to_bytes(32, "little")
