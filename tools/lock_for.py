"""
The pins of a universal lock that hold for another Python than the running one.

    python -m tools.lock_for 3.13 requirements-test.lock > requirements-3.13.txt

pip evaluates markers for the interpreter that it runs on, also where `--python-version` names another one.
"""

import re
import sys
from pathlib import Path

from packaging.markers import Marker


def pins(lock: str, version: str) -> list[str]:
    """Requirements with their hashes and without markers, of those whose marker holds for `version` ("3.13")."""
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    found = []
    for line in re.sub(r"\\\n\s*", "", lock).splitlines():
        requirement, _, hashes = line.partition("--hash=")
        name, _, marker = requirement.partition(";")
        if hashes and (not marker.strip() or Marker(marker).evaluate(environment)):
            found.append(f"{name.strip()} --hash={hashes}")
    return found


if __name__ == "__main__":
    print("\n".join(pins(Path(sys.argv[2]).read_text(encoding="utf-8"), sys.argv[1])))
