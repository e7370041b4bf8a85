"""
Boot a program in Debian's user-mode-linux: a kernel with sch_netem, on this machine's files, as an ordinary process.

The root file system is this machine's, read-only (hostfs); /run is the guest's own; what the program writes to OUTPUT
goes to a directory of the host.

Kernels before 6.13 keep a fixed room for the processor's vector state and die where the host has more of it (AMX).
`--hide-vector-state` starts one under a seccomp filter that makes ptrace refuse NT_X86_XSTATE: then it saves x87 and
SSE only, and the guest's C library is told to use nothing newer.
"""

import ctypes
import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path

PROGRAM = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
OUTPUT = "/mnt"
_NEWER_THAN_SSE = "AVX2,AVX,AVX512F,AVX512VL,AVX_Fast_Unaligned_Load,ERMS,FSRM"
_PTRACE, _XSTATE, _GET, _SET = 101, 0x202, 0x4204, 0x4205
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL_WITH_EINVAL = 0x7FFF0000, 0x00050016
_X86_64 = 0xC000003E

_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t hostfs -o {output} out /mnt
exec >/mnt/stdout 2>/mnt/stderr </dev/null
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export TMPDIR=/run
ip link set lo up
{python} {this} --load-modules {modules} || exit
cd {directory}
{command}
echo $? >/mnt/status
{python} {this} --power-off
"""


def boot(arguments: list[str], output: Path, *, directory: Path, modules: list[str], timeout_s: float) -> int:
    """
    Run a command as root inside; `output` gets stdout and stderr.  Returns its status.

    Raises subprocess.TimeoutExpired, or RuntimeError with the end of the console where it did not come to its end.
    """
    init = output / "init"
    names = " ".join(str(next(MODULES.rglob(f"{name}.ko"))) for name in modules)
    init.write_text(
        _INIT.format(
            output=output, python=sys.executable, this=Path(__file__), modules=names,
            directory=directory, command=shlex.join(arguments),
        ),
        encoding="utf-8",
    )  # fmt: skip
    init.chmod(0o755)
    kernel = [
        "mem=384M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "con=null",
        "con0=null,fd:1", "quiet", f"PYTHONPATH={directory}", "GLIBC_TUNABLES=glibc.cpu.hwcaps=-"
        + _NEWER_THAN_SSE.replace(",", ",-"),
    ]  # fmt: skip
    environ = {key: value for key, value in os.environ.items() if key not in {"TMPDIR", "TMP", "TEMP"}}
    command = [sys.executable, __file__, "--hide-vector-state", PROGRAM, *kernel]
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
    )
    try:
        return int((output / "status").read_text(encoding="ascii"))
    except OSError:
        console = (done.stdout + done.stderr).decode(errors="replace")[-2_000:]
        raise RuntimeError(f"user-mode-linux did not come to its end: {console}") from None


def _hide_vector_state() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # seccomp_data: number at 0, architecture at 4, the third argument (NT_X86_XSTATE) at 32, the first (request) at 16.
    program = b"".join(
        struct.pack("HBBI", *each)
        for each in (
            (_LOAD, 0, 0, 4), (_EQUAL, 0, 7, _X86_64), (_LOAD, 0, 0, 0), (_EQUAL, 0, 5, _PTRACE),
            (_LOAD, 0, 0, 32), (_EQUAL, 0, 3, _XSTATE), (_LOAD, 0, 0, 16), (_EQUAL, 2, 0, _GET), (_EQUAL, 1, 0, _SET),
            (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _FAIL_WITH_EINVAL),
        )
    )  # fmt: skip
    held = ctypes.create_string_buffer(program)
    filter_program = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(filter_program), 0, 0):
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


def _load_modules(paths: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for path in paths:
        with Path(path).open("rb") as module:
            if libc.syscall(313, module.fileno(), b"", 0) and ctypes.get_errno() != 17:
                raise OSError(ctypes.get_errno(), f"{path}: cannot be loaded")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--hide-vector-state", *command]:
            _hide_vector_state()
            os.execvp(command[0], command)
        case ["--load-modules", *paths]:
            _load_modules(paths)
        case ["--power-off"]:
            ctypes.CDLL(None).reboot(0x4321FEDC)
