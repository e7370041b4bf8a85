"""
The system's tools (`ip`, `tc`, `nft`, `iptables-restore`): run one, and say in a sentence why it failed.

Chosen over a netlink library: their language is what the manuals show, a failed command can be repeated by hand, and
batches (`-batch -`, `-f -`) make a thousand links in one process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import trio

from netem.errors import MissingKernelFeatureError, MissingPrivilegeError, MissingToolError, NetemError, ToolFailedError

_PACKAGES = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "iptables-restore": "iptables"}
_ELSEWHERE = "; or use `--backend {}`"
_FEATURES = (
    # What the tool was asked for, what is missing, and what else works.
    ("netem", "sch_netem", "the qdisc for delay, loss and rate", "namespaces` or `--backend proxy"),
    ("tbf", "sch_tbf", "the qdisc for rates", "proxy"),
    ("ifb", "ifb", "the device that shapes what comes in", "namespaces` or `--backend proxy"),
    ("veth", "veth", "pairs of virtual interfaces", "proxy"),
    ("NFQUEUE", "nfnetlink_queue and xt_NFQUEUE", "queueing of packets to this program", "proxy"),
    ("numgen", "nft_numgen", "random loss", "proxy"),
    ("ingress", "sch_ingress", "the qdisc for what comes in", "namespaces` or `--backend proxy"),
)
_UNKNOWN = (
    "qdisc kind is unknown", "Unknown device type", "No such file or directory", "Operation not supported",
    "TC classifier not found", "Failed to load TC action module", "Extension", "Unknown filter",
)  # fmt: skip


def find_tool(name: str) -> str:
    """The path of a tool; system directories count even where PATH lacks them.  Raises MissingToolError."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise MissingToolError(f"`{name}` is not installed: install the package {_PACKAGES[name]} (Debian, Ubuntu)")
    return found


async def run_tool(*arguments: str, stdin: str = "") -> str:
    """
    Run a tool to its end and return what it wrote.

    Raises MissingToolError, MissingPrivilegeError, MissingKernelFeatureError or ToolFailedError.
    """
    path = find_tool(arguments[0])
    done = await trio.run_process(
        [path, *arguments[1:]], stdin=stdin.encode(), capture_stdout=True, capture_stderr=True, check=False
    )
    if done.returncode != 0:
        raise explain(arguments, stdin, done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace")


def explain(arguments: Sequence[str], stdin: str, stderr: str) -> NetemError:
    """The error for a tool's failure, by what it was asked for and what it wrote to stderr."""
    command = " ".join(arguments)
    reason = "; ".join(line.strip() for line in stderr.splitlines()[:3] if line.strip()) or "no reason given"
    if "Operation not permitted" in stderr or "Permission denied" in stderr:
        return MissingPrivilegeError(f"`{command}`: {reason}")
    if any(text in stderr for text in _UNKNOWN):
        for word, module, what, others in _FEATURES:
            if word in command or word in stdin:
                return MissingKernelFeatureError(
                    f"this kernel has no {module} ({what}), or the module cannot be loaded: install the kernel's full "
                    f"set of modules (Ubuntu: linux-modules-extra){_ELSEWHERE.format(others)} (`{command}`: {reason})"
                )
    return ToolFailedError(f"`{command}` failed: {reason}")
