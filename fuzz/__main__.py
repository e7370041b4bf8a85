"""
`python -m fuzz CODEC [libFuzzer option ...]`: atheris on one codec until -max_total_time= seconds are over.

Inputs that found something new are kept in out/fuzz/CODEC and are the next run's start; the first run starts from the
telegrams of tests/data/meters and, where they are beside the repository, the recorded ones.  An input that breaks the
invariant stops the run and lies in out/fuzz as crash-*.
One input may take 5 s and the process 1 GB: what a codec may hold is kilobytes, so a leak shows.
"""

import hashlib
import sys
from itertools import chain
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["node", "protocol"]):
    from fuzz.invariant import CODECS, Codec, hold, own_seeds, seeds

_CORPORA = Path(__file__).parents[1] / "../shared/corpora"
_FOUND = Path("out/fuzz")


def _plant(name: str, codec: Codec, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    recorded = seeds(codec, _CORPORA) if _CORPORA.is_dir() else ()
    for seed in chain(own_seeds(name), recorded):
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def main() -> None:
    """Fuzz the codec that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in CODECS:
        sys.exit(f"usage: python -m fuzz {{{','.join(CODECS)}}} [-max_total_time=SECONDS ...]")
    name, options = sys.argv[1], sys.argv[2:]
    codec = CODECS[name]
    _plant(name, codec, _FOUND / name)
    bounds = [
        "-max_len=2048",
        "-timeout=5",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-artifact_prefix={_FOUND}/",
    ]
    atheris.Setup([sys.argv[0], *bounds, *options, str(_FOUND / name)], lambda data: hold(codec, data))
    atheris.Fuzz()


main()
