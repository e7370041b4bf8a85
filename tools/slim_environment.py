"""
Take out of a virtual environment what no command of ours reads, and compile what is left: for the images.

    python tools/slim_environment.py /opt/stromkreis

Of Plotly only its script is read (by dashboard and reports), of Pygments, which rich needs, only what shows Python and
plain text, of other packages neither tests nor headers nor what would compile their extensions anew, nor what a
debugger would; pip has done its work.  The image's root is read-only, so bytecode has to be there.
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode

PLOTLY_SCRIPT = Path("plotly/package_data/plotly.min.js")
_UNREAD_PACKAGES = (
    "_plotly_utils",
    "jupyterlab_plotly",
    "narwhals",
    "pip",
    "setuptools",
    "_distutils_hack",
    "pkg_resources",
)
_UNREAD_FOLDERS = ("numpy/f2py", "numpy/_core/include", "numpy/_core/lib", "numpy/_pyinstaller", "numpy/typing/tests")
_PYGMENTS_LEXERS = frozenset({"__init__.py", "_mapping.py", "python.py", "special.py"})
_UNREAD_SUFFIXES = frozenset({".pyi", ".pyx", ".pxd", ".c", ".h", ".cpp", ".hpp", ".a", ".map"})


def slim(environment: Path) -> None:
    """Remove and compile in place.  Raises FileNotFoundError where Plotly's script is not there."""
    (site,) = (environment / "lib").glob("python3*/site-packages")
    script = (site / PLOTLY_SCRIPT).read_bytes()
    _remove([site / "plotly"])
    (site / PLOTLY_SCRIPT).parent.mkdir(parents=True)
    (site / PLOTLY_SCRIPT).write_bytes(script)
    for name in _UNREAD_PACKAGES:
        _remove((site / name, *site.glob(f"{name}-*.dist-info"), *(environment / "bin").glob(f"{name}*")))
    _remove(site.glob("distutils-precedence.pth"))
    _remove(site / name for name in _UNREAD_FOLDERS)
    _remove(path for path in (site / "pygments/lexers").glob("*.py") if path.name not in _PYGMENTS_LEXERS)
    _remove(sorted(path for path in site.rglob("tests") if path.is_dir()))
    _remove(path for path in sorted(site.rglob("*")) if path.suffix in _UNREAD_SUFFIXES)
    # Not what wheels bring along of libraries: that was patched by others' tools, and some does not survive it.
    extensions = [str(path) for path in site.rglob("*.so") if not path.parts[len(site.parts)].endswith(".libs")]
    subprocess.run(["strip", "--strip-debug", *extensions], check=True)  # noqa: S603, S607
    compileall.compile_dir(site, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
