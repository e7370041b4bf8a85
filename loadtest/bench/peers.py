"""
Peers: other people's packages, each in an environment of its own, as a process that takes orders.

An environment is `.venv-peers-NAME` beside the code (made by `make bench`) or the interpreter that
`STROMKREIS_PEERS_NAME` names.  Where there is none the peer's columns stay empty.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any


def peer_python(name: str) -> Path | None:
    """The interpreter of a peer's environment, None where there is none."""
    path = Path(os.environ.get(f"STROMKREIS_PEERS_{name.upper()}", f".venv-peers-{name}/bin/python"))
    return path if path.is_file() else None


class Peer:
    """
    A script of this folder that answers one line of JSON with one, in a peer's interpreter.

    Started with -P: the script's folder must not hide a module of the peer's.
    """

    def __init__(self, python: Path, script: str, *arguments: str) -> None:
        path = Path(__file__).with_name(script)
        self._process = subprocess.Popen(  # noqa: S603 - an interpreter that the operator named
            [python, "-P", path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()

    def order(self, **order: Any) -> Any:
        """Send one order and wait for its answer.  Raises ValueError where the process has died."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("the peer has no pipes")
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())
