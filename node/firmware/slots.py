"""
The firmware directory of a node: two slots, and a file that says which one runs, is tried, or waits to be.

    state.json    what stands where; replaced as a whole, durable before anything that follows from it
    a/, b/        unpacked releases; a new one goes into the slot that does not run
    image.part    one image while it comes, by its digest; goes on where it stood

Without a slot in force the program runs that was installed by hand: it is what is left when nothing else holds.  The
supervisor writes the file while no node runs, the node while it does, so that nobody waits for a lock:

    node        stage -> make_due               node       confirm
    supervisor           begin_trial -> count_start -> ...  or  roll_back

A process that is killed at any point finds a whole release in force and at most one step to do again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from node.firmware.image import check_image, content_sha256, unpack
from protocol.durable import flush_directory
from protocol.errors import RemoteProtocolError
from protocol.profiles.firmware import FirmwareManifest, FirmwareOrder, FirmwareState, version_numbers

log = logging.getLogger(__name__)
SLOTS: Final = ("a", "b")
_STATE_FILE: Final = "state.json"


class _Record(BaseModel):
    # What a later release wrote beside it is left out, not refused: the supervisor is older than what it starts.
    model_config = ConfigDict(frozen=True, extra="ignore")


class SlotRecord(_Record):
    """
    A release in a slot: `sha256` of its image, `content_sha256` of its files.

    `issued_ms` is its order's.
    """

    version: str
    sha256: str
    content_sha256: str
    issued_ms: int


class Outcome(_Record):
    """What became of the last release that was tried; `is_noted` once it stands in the gateways' logs."""

    version: str
    sha256: str
    issued_ms: int
    state: FirmwareState
    reason: str = ""
    is_noted: bool = False


class FirmwareStatus(_Record):
    """
    Which slot is in force (`current`), whole but not started (`staged`), or tried (`trial`); None for none.

    `is_due`: the node has ended so that the staged one is tried.  `starts` counts those of the trial.  `newest` is the
    highest version that was ever in force.
    """

    current: str | None = None
    staged: str | None = None
    is_due: bool = False
    trial: str | None = None
    starts: int = 0
    slots: dict[str, SlotRecord] = {}
    newest: str = ""
    outcome: Outcome | None = None

    def record(self, slot: str | None) -> SlotRecord | None:
        """What is in a slot."""
        return None if slot is None else self.slots.get(slot)


class FirmwareDirectory:
    """One node's; whoever opens it first makes it.  Methods raise OSError where the disk fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- state --------------------------------------------------------------------------------------------------------

    def read(self) -> FirmwareStatus:
        """What stands where; a file that is damaged is put aside, and the installed program is in force."""
        file = self.path / _STATE_FILE
        try:
            return FirmwareStatus.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return FirmwareStatus()
        except ValidationError:
            log.error("%s is damaged and put aside: the program runs that was installed by hand", file)
            file.replace(file.with_suffix(".damaged"))
            return FirmwareStatus()

    def _write(self, status: FirmwareStatus) -> None:
        """Replace the file; durable on return."""
        temporary = self.path / f"{_STATE_FILE}.new"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(json.dumps(status.model_dump(mode="json"), sort_keys=True))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path / _STATE_FILE)
        flush_directory(self.path)

    def _change(self, change: Callable[[FirmwareStatus], FirmwareStatus]) -> FirmwareStatus:
        status = change(self.read())
        self._write(status)
        return status

    # --- the node: an image comes, is unpacked, and confirms itself ---------------------------------------------------

    def received(self, manifest: FirmwareManifest) -> int:
        """So many bytes of the image are here; what there is of others is deleted."""
        part = self._part(manifest)
        for each in self.path.glob("*.part"):
            if each != part:
                each.unlink()
        return part.stat().st_size if part.exists() else 0

    def append(self, manifest: FirmwareManifest, octets: bytes) -> int:
        """
        The next bytes of the image; durable on return, which is how many are here now.

        Raises RemoteProtocolError `firmware_digest` where they are more than the image has.
        """
        part = self._part(manifest)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            size = file.tell() + len(octets)
            if size > manifest.size:
                raise RemoteProtocolError("firmware_digest", "the image is larger than its manifest says")
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        return size

    def stage(self, order: FirmwareOrder) -> None:
        """
        Check the image that came and unpack it into the slot that does not run; durable on return.

        Raises RemoteProtocolError: what `check_image` and `unpack` raise; the image is deleted then.
        """
        manifest, part = order.manifest, self._part(order.manifest)
        status = self.read()
        slot = next(each for each in SLOTS if each != status.current)
        if slot in status.slots:  # what was in it is not whole any more from here on
            known = {name: each for name, each in status.slots.items() if name != slot}
            self._write(status.model_copy(update={"slots": known, "staged": None, "is_due": False}))
        try:
            check_image(part, manifest)
            unpack(part, self.path / f"{slot}.new")
        except RemoteProtocolError:
            part.unlink(missing_ok=True)
            shutil.rmtree(self.path / f"{slot}.new", ignore_errors=True)
            raise
        shutil.rmtree(self.path / slot, ignore_errors=True)
        os.replace(self.path / f"{slot}.new", self.path / slot)
        record = SlotRecord(
            version=manifest.version, sha256=manifest.sha256, content_sha256=content_sha256(self.path / slot),
            issued_ms=order.issued_ms,
        )  # fmt: skip
        flush_directory(self.path)
        self._change(
            lambda now: now.model_copy(update={"staged": slot, "is_due": False, "slots": {**now.slots, slot: record}})
        )
        part.unlink(missing_ok=True)

    def make_due(self) -> FirmwareStatus:
        """The node is about to end, for the staged release to be tried; not due where none is staged."""
        return self._change(lambda now: now.model_copy(update={"is_due": now.staged is not None}))

    def confirm(self) -> FirmwareStatus:
        """The release that is tried does its work: it is in force from now on."""

        def confirmed(now: FirmwareStatus) -> FirmwareStatus:
            record = now.record(now.trial)
            if record is None:
                return now
            newest = max((each for each in (now.newest, record.version) if each), key=version_numbers)
            outcome = _outcome(record, FirmwareState.RUNNING)
            changed = {"current": now.trial, "trial": None, "starts": 0, "newest": newest, "outcome": outcome}
            return now.model_copy(update=changed)

        return self._change(confirmed)

    def noted(self) -> None:
        """The outcome stands in the gateways' logs."""
        self._change(
            lambda now: (
                now
                if now.outcome is None
                else now.model_copy(update={"outcome": now.outcome.model_copy(update={"is_noted": True})})
            )
        )

    # --- the supervisor: a release is tried, or the one before it runs again ------------------------------------------

    def begin_trial(self) -> FirmwareStatus:
        """The staged release is tried from now on."""
        return self._change(
            lambda now: now.model_copy(update={"trial": now.staged, "staged": None, "is_due": False, "starts": 0})
        )

    def count_start(self) -> FirmwareStatus:
        """The release that is tried is started once more."""
        return self._change(lambda now: now.model_copy(update={"starts": now.starts + 1}))

    def roll_back(self, reason: str) -> FirmwareStatus:
        """The release that is tried has failed: the one before it is in force."""

        def rolled_back(now: FirmwareStatus) -> FirmwareStatus:
            record = now.record(now.trial)
            outcome = now.outcome if record is None else _outcome(record, FirmwareState.ROLLED_BACK, reason)
            return now.model_copy(update={"trial": None, "starts": 0, "outcome": outcome})

        return self._change(rolled_back)

    def drop_current(self, reason: str) -> FirmwareStatus:
        """The release in force does not hold any more: the installed program is in force."""

        def dropped(now: FirmwareStatus) -> FirmwareStatus:
            record = now.record(now.current)
            outcome = now.outcome if record is None else _outcome(record, FirmwareState.ROLLED_BACK, reason)
            return now.model_copy(update={"current": None, "outcome": outcome})

        return self._change(dropped)

    def is_whole(self, slot: str) -> bool:
        """Whether a slot has the files that were unpacked into it, and no others."""
        record = self.read().record(slot)
        try:
            return record is not None and content_sha256(self.path / slot) == record.content_sha256
        except OSError:
            return False

    def _part(self, manifest: FirmwareManifest) -> Path:
        return self.path / f"{manifest.sha256}.part"


def _outcome(record: SlotRecord, state: FirmwareState, reason: str = "") -> Outcome:
    return Outcome(
        version=record.version, sha256=record.sha256, issued_ms=record.issued_ms, state=state, reason=reason
    )  # fmt: skip
