"""
What a restore of the database must not undo: revocations, uses of enrolment tokens, how far epochs have gone.

A database that was put back to an earlier state has gateways active again that were revoked since, and tokens good
again that were spent.  So these are kept in a file of their own too, which a restore of the database leaves alone: one
line of JSON for each, appended and durable before the database commits to it.  At its start a coordinator brings what
the file says into the database (coordinator.gwa.reconcile), and takes up no epoch whose rounds have gone on since.

Who restores more than the database (a machine, a volume) brings the newest file along: `stromkreis restore` does so.
A revoked gateway's line has its directory line and certificates, as the restored database may not know it at all.
A line that a crash has cut off is passed over: what it says was not committed to.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from coordinator.storage.certificates import CertificateRecord
from coordinator.storage.gateways import GatewayRecord, GatewayStatus
from protocol import pki
from protocol.durable import flush_directory

log = logging.getLogger(__name__)
FILE_NAME: Final = "irrevocable.jsonl"


@dataclass(slots=True)
class Irrevocable:
    """
    What a file says: revoked gateways by CURVE key, in the order in which they were, and which of them gave their id
    up; those that have left for good, by id; tokens by digest, last ended rounds of epochs (-1: called).
    """

    revoked: dict[bytes, tuple[GatewayRecord, list[CertificateRecord]]] = field(default_factory=dict)
    released: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    uses_left: dict[bytes, int] = field(default_factory=dict)
    tokens_revoked: dict[bytes, int] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)


class IrrevocableLog:
    """The file; several processes may append.  Every method raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reached: dict[int, int] = {}

    def revoke_gateway(self, gateway: GatewayRecord, certificates: Sequence[CertificateRecord], now_ms: int) -> None:
        """A gateway is about to be revoked, with its certificates."""
        rows = [_plain(each) for each in certificates]
        self._append({"gateway": _plain(gateway) | {"revoked_ms": now_ms}, "certificates": rows})

    def release_gateway(self, gateway: GatewayRecord, now_ms: int) -> None:
        """The id of a gateway that is revoked is about to be free for others' keys."""
        self._append({"released": gateway.gateway_id, "curve_key": gateway.curve_key.hex(), "released_ms": now_ms})

    def leave_gateway(self, gateway_id: str, now_ms: int) -> None:
        """A gateway that is revoked is about to have left for good."""
        self._append({"left": gateway_id, "left_ms": now_ms})

    def use_token(self, digest: bytes, uses_left: int) -> None:
        """A token has so many uses left."""
        self._append({"token": digest.hex(), "uses_left": uses_left})

    def revoke_token(self, digest: bytes, now_ms: int) -> None:
        """A token is about to be revoked."""
        self._append({"token": digest.hex(), "revoked_ms": now_ms})

    def call(self, epoch: int) -> None:
        """An epoch is about to be called.  No flush is waited for: gateways, too, tell the numbers that they know."""
        self._append({"epoch": epoch, "round": -1}, is_flushed=False)

    def reach(self, epoch: int, round_: int) -> None:
        """A round of an epoch has ended in one of its rings; a line for each at most."""
        if round_ > self._reached.get(epoch, -1):
            self._append({"epoch": epoch, "round": round_})
            self._reached[epoch] = round_

    def read(self) -> Irrevocable:
        """What all lines say together."""
        found = Irrevocable()
        if not self.path.exists():
            return found
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            try:
                _take(found, json.loads(line)) if line else None
            except (ValueError, KeyError, TypeError):  # whose text could quote the line
                log.warning("%s: line %d is not readable and passed over", self.path, number)
        self._reached = dict(found.reached)
        return found

    def merge(self, lines: Iterable[bytes]) -> None:
        """Add the lines of another file, of a backup or of what it replaces; a line twice says nothing new."""
        known = set(self.path.read_bytes().splitlines()) if self.path.exists() else set()
        self._write(b"".join(line + b"\n" for line in lines if line and line not in known))

    def _append(self, entry: dict[str, Any], *, is_flushed: bool = True) -> None:
        self._write(json.dumps(entry, sort_keys=True).encode() + b"\n", is_flushed=is_flushed)

    def _write(self, data: bytes, *, is_flushed: bool = True) -> None:
        is_new = not self.path.exists()
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
                data = b"\n" + data  # a crash has cut the last line off
            file.write(data)
            file.flush()
            if is_flushed:
                os.fsync(file.fileno())
        if is_new:
            flush_directory(self.path.parent)


def _take(found: Irrevocable, entry: dict[str, Any]) -> None:
    if "gateway" in entry:
        gateway = GatewayRecord(**_typed(GatewayRecord, entry["gateway"]) | {"status": GatewayStatus.REVOKED})
        rows = [_typed(CertificateRecord, each) for each in entry["certificates"]]
        certificates = [CertificateRecord(**row | {"role": pki.Role(row["role"])}) for row in rows]
        found.revoked.setdefault(gateway.curve_key, (gateway, certificates))
    elif "released" in entry:
        found.released.setdefault(
            bytes.fromhex(entry["curve_key"]), (str(entry["released"]), int(entry["released_ms"]))
        )
    elif "left" in entry:
        found.left.setdefault(str(entry["left"]), int(entry["left_ms"]))
    elif "uses_left" in entry:
        digest, left = bytes.fromhex(entry["token"]), int(entry["uses_left"])
        found.uses_left[digest] = min(left, found.uses_left.get(digest, left))
    elif "token" in entry:
        found.tokens_revoked.setdefault(bytes.fromhex(entry["token"]), int(entry["revoked_ms"]))
    else:
        number, round_ = int(entry["epoch"]), int(entry["round"])
        found.reached[number] = max(round_, found.reached.get(number, -1))


def _plain(record: GatewayRecord | CertificateRecord) -> dict[str, Any]:
    """As JSON has it: octets in hexadecimal, an enumeration by its value."""
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    return {
        name: value.hex() if isinstance(value, bytes) else getattr(value, "value", value)
        for name, value in values.items()
    }  # fmt: skip


def _typed(kind: type[GatewayRecord | CertificateRecord], row: dict[str, Any]) -> dict[str, Any]:
    values = {each.name: row[each.name] for each in fields(kind) if each.name in row}  # lines of earlier releases
    octets = [each.name for each in fields(kind) if "bytes" in str(each.type) and values.get(each.name) is not None]
    return values | {name: bytes.fromhex(values[name]) for name in octets}
