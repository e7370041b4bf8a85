"""
What a run has made in the system, written down before it is made, so that a crash leaves nothing that nobody finds.

Each run has a file under /run/stromkreis-netem and holds a lock on it.  A file whose lock is free belongs to a run that
is over or was killed: `clean` removes what it lists.  The kernel drops the lock with the process, whatever ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import trio

from netem.errors import MissingPrivilegeError, NetemError, ToolFailedError
from netem.netns import RUN_NETNS
from netem.tools import run_tool

FOLDER = Path("/run/stromkreis-netem")
PREFIX = "stromkreis-netem-"
"""Every namespace of ours begins so."""
_TERM_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class ShapedInterface:
    """An existing interface that has our queueing disciplines."""

    interface: str
    ifb: str
    namespace: str | None = None


@dataclass(slots=True)
class Resources:
    """What a run has made."""

    namespaces: list[str] = field(default_factory=list)
    shaped: list[ShapedInterface] = field(default_factory=list)


class Record:
    """The file of a run; a context manager that removes it at the end (what it lists must be gone then)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = FOLDER if folder is None else folder
        self.run_id = f"{os.getpid():x}-{os.urandom(2).hex()}"
        self.made = Resources()
        self._file: IO[str] | None = None
        self._path = self._folder / f"{self.run_id}.json"

    def __enter__(self) -> Record:
        unlocked = self._path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o755, exist_ok=True)
            self._file = unlocked.open("x+", encoding="utf-8")
        except PermissionError:
            raise MissingPrivilegeError(f"{unlocked}: cannot be written") from None
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._write()
        unlocked.rename(self._path)  # under the name that `stale` looks for, it is never without its lock
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None  # noqa: S101 - entered before
        if not self.made.namespaces and not self.made.shaped:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def add_namespace(self, name: str) -> str:
        """Write a namespace down and return its full name."""
        full = f"{PREFIX}{self.run_id}-{name}"
        self.made.namespaces.append(full)
        self._write()
        return full

    def add_shaped(self, shaped: ShapedInterface) -> None:
        """Write an interface down that is about to be shaped."""
        self.made.shaped.append(shaped)
        self._write()

    async def remove_all(self) -> None:
        """Remove everything that is written down, also while the caller is cancelled."""
        with trio.CancelScope(shield=True):
            await remove(self.made)
        self.made = Resources()

    def _write(self) -> None:
        assert self._file is not None  # noqa: S101 - entered before
        self._file.seek(0)
        json.dump(asdict(self.made), self._file)
        self._file.flush()
        self._file.truncate()


async def remove(made: Resources) -> list[str]:
    """
    Remove namespaces (with the processes in them, SIGTERM first), qdiscs and devices; what is gone already is fine.

    Returns a line for each thing that was there.  Raises NetemError where something could not be removed.
    """
    there = [name for name in made.namespaces if (RUN_NETNS / name).exists()]
    removed = []
    if there:
        await _end_processes(there)
        try:
            await run_tool("ip", "-force", "-batch", "-", stdin="".join(f"netns del {name}\n" for name in there))
        except ToolFailedError:
            if any((RUN_NETNS / name).exists() for name in there):
                raise
        removed = [f"namespace {name}" for name in there]
    for shaped in made.shaped:
        inside = ["-n", shaped.namespace] if shaped.namespace else []
        for what, command in (
            (f"qdisc of {shaped.interface}", ("tc", *inside, "qdisc", "del", "dev", shaped.interface, "root")),
            (f"ingress of {shaped.interface}", ("tc", *inside, "qdisc", "del", "dev", shaped.interface, "ingress")),
            (f"device {shaped.ifb}", ("ip", *inside, "link", "del", shaped.ifb)),
        ):
            with suppress(NetemError):  # there is none: the run ended before it came so far
                await run_tool(*command)
                removed.append(what)
    return removed


async def _end_processes(namespaces: list[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        found: list[str] = []
        for name in namespaces:
            with suppress(ToolFailedError):  # it is gone already
                found += (await run_tool("ip", "netns", "pids", name)).split()
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)
        with trio.move_on_after(_TERM_GRACE_S):
            while found and any(Path(f"/proc/{pid}/exe").exists() for pid in found):
                await trio.sleep(0.05)
            return


def stale(folder: Path | None = None) -> Iterator[tuple[Path, Resources]]:
    """
    The records whose run is over, each locked until the next is asked for, and namespaces of ours without a record.

    The namespaces are listed before the records: whoever makes one has written its record before.
    """
    there = sorted(entry.name for entry in RUN_NETNS.glob(f"{PREFIX}*"))
    orphans = set(there)
    for path in sorted((FOLDER if folder is None else folder).glob("*.json")):
        of_run = [name for name in there if name.startswith(f"{PREFIX}{path.stem}-")]
        orphans -= set(of_run)
        try:
            file = path.open("r+", encoding="utf-8")
        except FileNotFoundError:  # its run has just ended
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            made = _parse(file.read())
            made.namespaces = sorted({*made.namespaces, *of_run})
            yield path, made
    if orphans:
        yield RUN_NETNS, Resources(namespaces=sorted(orphans))


def _parse(text: str) -> Resources:
    try:
        value = json.loads(text)
        return Resources(list(value["namespaces"]), [ShapedInterface(**each) for each in value["shaped"]])
    except (ValueError, KeyError, TypeError):  # cut off by the crash: its namespaces are found by their names
        return Resources()


async def clean(folder: Path | None = None) -> list[str]:
    """Remove what runs left behind that are over; returns a line for each thing removed.  Runs that live are spared."""
    removed: list[str] = []
    for path, made in stale(folder):
        removed += await remove(made)
        if path.suffix == ".json":
            path.unlink(missing_ok=True)
    return removed
