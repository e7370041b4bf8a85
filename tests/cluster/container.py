"""
A container as a process: network namespace of its pod, a root of its own with the volumes mounted, the user and the
capabilities of its security context, and the environment that a kubelet gives it.

The root is that of an image, or shows this machine's `/usr` and this checkout, both read-only, so that the code under
test runs without an image.  Programs start by exec alone, so the process that is signalled is the program.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.cluster.manifests import ROOT, Object, expanded

PATH = f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin"
IMAGE_PATH = "/opt/stromkreis/bin:/usr/bin:/bin"  # as the Containerfile sets it
_ENTRY_POINT = re.findall(
    r'^ENTRYPOINT \["(.+)"\]$', (ROOT / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE
)
_TREES = tuple(dict.fromkeys((Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), ROOT)))
_ETC = {
    "passwd": "root:x:0:0::/:/bin/false\nstromkreis:x:10001:10001::/nonexistent:/bin/false\n",
    "group": "root:x:0:\nstromkreis:x:10001:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of this machine, and where a container sees it."""

    source: Path
    path: str
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """What a container shares with its pod."""

    pod: str
    namespace: str
    directory: Path
    etc: Mapping[str, str]
    security: Object
    images: Mapping[str, Path]
    """Root directories of images by their name; none: this machine and this checkout."""

    def image_of(self, container: Object) -> Path | None:
        """The root directory of a container's image."""
        return self.images.get(container["image"].partition(":")[0])


def command_of(container: Object, environment: Mapping[str, str]) -> list[str]:
    """What runs: the image's entry point unless the manifest has a command, then the arguments; `$(NAME)` expanded."""
    return [
        expanded(each, environment) for each in (*container.get("command", _ENTRY_POINT), *container.get("args", ()))
    ]


async def start(
    container: Object, setting: Setting, mounts: Sequence[Mount], environment: Mapping[str, str]
) -> trio.Process:
    """Start the container's process; its output is added to `NAME.log` in the pod's directory."""
    root = setting.directory / f"root-{container['name']}"
    root.mkdir(exist_ok=True)
    script = _script(container, setting, mounts, root, command_of(container, environment))
    inside = ["/bin/sh", "-c", script]
    command = [_tool("ip"), "netns", "exec", setting.namespace, _tool("unshare"), "--mount", "--uts", *inside]
    # The programs end with their standard input (STROMKREIS_LIFELINE), so also when this process is killed.
    open_process = partial(trio.lowlevel.open_process, stdin=subprocess.PIPE, start_new_session=True)
    with (setting.directory / f"{container['name']}.log").open("ab") as output:
        return await open_process(
            command, stdout=output, stderr=output,
            env={
                "PATH": IMAGE_PATH if setting.image_of(container) else PATH, "HOSTNAME": setting.pod,
                "PYTHONDONTWRITEBYTECODE": "1", "STROMKREIS_LIFELINE": "stdin", **environment,
            },
        )  # fmt: skip


async def run_inside(process: trio.Process, command: Sequence[str], path: str = PATH) -> int:
    """Run a command in a container that runs, as an exec probe does; its exit status."""
    enter = [_tool("nsenter"), "--target", str(process.pid), "--mount", "--net", "--root", "--wd=/tmp"]
    done = await trio.run_process(
        [*enter, "/usr/bin/setpriv", "--reuid", "10001", "--regid", "10001", "--clear-groups", *command],
        env={"PATH": path}, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode


def own_claimed(path: Path, group: int) -> None:
    """Give a claimed volume the pod's group where its top has another one (fsGroupChangePolicy OnRootMismatch)."""
    if path.stat().st_gid != group:
        for each in (path, *path.rglob("*")):
            shutil.chown(each, group=group)
            each.chmod(each.stat().st_mode | (0o2770 if each.is_dir() else 0o660))


def own_projected(path: Path, group: int, mode: int) -> None:
    """Give the files of a Secret or ConfigMap the pod's group and their mode."""
    shutil.chown(path, group=group)
    path.chmod(0o2755)
    for each in path.iterdir():
        shutil.chown(each, group=group)
        each.chmod(mode)


def _script(container: Object, setting: Setting, mounts: Sequence[Mount], root: Path, command: Sequence[str]) -> str:
    lines = [
        "set -eu", f"hostname {shlex.quote(setting.pod)}", "mount --make-rprivate /",
        f"mount -t tmpfs -o mode=755,size=4m tmpfs {root}", f"cd {root}",
    ]  # fmt: skip
    image = setting.image_of(container)
    if image is not None:
        lines += [
            "mkdir upper work root",
            f"mount -t overlay -o lowerdir={image},upperdir={root}/upper,workdir={root}/work overlay {root}/root",
        ]
        root /= "root"
        lines.append(f"cd {root}")
    else:
        lines += [
            "mkdir -p proc dev etc run var tmp", "ln -s usr/bin bin", "ln -s usr/sbin sbin", "ln -s usr/lib lib",
            "[ ! -e /usr/lib64 ] || ln -s usr/lib64 lib64", "ln -s ../run var/run",
            # A mount point inside a tree that is mounted already would be on this machine's disk: none is.
            *(f"mkdir -p .{tree} && mount -o bind,ro {tree} .{tree}" for tree in _outermost(_TREES)),
        ]  # fmt: skip
    lines += ["mount --rbind /proc proc", "mount --rbind /dev dev"]
    for name, text in {**(_ETC if image is None else {}), **setting.etc}.items():
        lines.append(f"printf %s {shlex.quote(text)} > etc/{name}")
    for mount in sorted(mounts, key=lambda each: each.path):
        path = mount.path.replace("/var/run/", "/run/")  # a link in images, which would be followed out of them
        lines.append(f"mkdir -p .{path}")
        lines.append(f"mount -o bind,{'ro' if mount.is_read_only else 'rw'} {mount.source} .{path}")
    if image is None:  # a checkout below /tmp lies under the pod's own /tmp
        hidden = [tree for tree in _outermost(_TREES) if any(Path(tree).is_relative_to(each.path) for each in mounts)]
        lines += [f"mkdir -p .{tree} && mount -o bind,ro {tree} .{tree}" for tree in hidden]
    pod, own_context = setting.security, container["securityContext"]
    if own_context["readOnlyRootFilesystem"]:
        lines.append(f"mount -o remount,ro {root}" if image else f"mount -o remount,ro,mode=755,size=4m {root}")
    user, group = (own_context.get(key, pod[key]) for key in ("runAsUser", "runAsGroup"))
    capabilities: dict[str, Any] = own_context["capabilities"]
    if capabilities != {"drop": ["ALL"]} or own_context["allowPrivilegeEscalation"]:
        raise ValueError(f"{container['name']}: the pod runner knows containers without capabilities only")
    lines.append(
        f"exec {_tool('chroot')} {root} /usr/bin/env -C /tmp /usr/bin/setpriv --reuid {user} --regid {group}"
        f" --groups {pod.get('fsGroup', group)} --no-new-privs --bounding-set=-all --inh-caps=-all"
        f" {shlex.join(command)}"
    )
    return "\n".join(lines)


def _outermost(trees: Sequence[Path]) -> list[Path]:
    return [each for each in trees if not any(each != other and each.is_relative_to(other) for other in trees)]


def _tool(name: str) -> str:
    found = shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found
