"""Processes of a `Network` that can be killed for real: a node's configuration as a file, and a child of ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from loadtest.network import Network

_ROOT = Path(__file__).parents[1]


def config_file(network: Network, first: int, count: int, name: str) -> Path:
    """A file for `stromkreis node --config` with the configuration of `network.node_config`."""
    config = network.node_config(first, count, name)
    if network.token is None:
        raise RuntimeError("start the coordinator first")
    values = config.model_dump(mode="json", exclude_none=True) | {"token": network.token.get_secret_value()}
    for gateway in values["gateways"]:
        gateway.pop("token", None)
    path = network.directory / f"{name}.toml"
    path.write_text(tomli_w.dumps({"node": values}), encoding="utf-8")
    return path


@contextmanager
def process(network: Network, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with these arguments; its output goes to child.log, and it is killed on leaving."""
    with (network.directory / "child.log").open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"}, cwd=network.directory,
        )  # fmt: skip
        try:
            yield child
        finally:
            child.kill()
            child.wait()
