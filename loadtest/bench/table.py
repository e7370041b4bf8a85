"""The report: rows as JSON, and all of them as one Markdown file with the machine, the date and the load."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtest.bench.measure import Row, Spread, Target

_HEAD = """# Benchmarks

Written by `make bench` (`python -m loadtest.bench`) and `make bench-fleet`; do not edit by hand.

- machine, where a section names no other: {cpu}, {cores} cores, {memory_gb:.0f} GB, {system}
- Python {python}, cryptography {cryptography}, NumPy {numpy}, PyNaCl {pynacl}, pyzmq {pyzmq}

Each figure is a median with the quartiles of its samples in brackets.  Ours and a peer's are taken in the same run in
turn (A B A B ...), in two processes, and the ratio is that of neighbouring samples: above 1, ours is better.  Times are
CPU time unless the column says wall.  A quoted figure is somebody else's from another machine.  The code is in
`loadtest/bench`, each file says what exactly it measures.  Each section has the date of its run and the load of the
machine, our own included; a load well over 1 before the start means that others used the machine too.  A section says
what was so at its date: what has changed since is in the README's table of costs until that section is run again.

`make bench-compare OLD=COMMIT` holds this tree against an earlier one: a fleet and a ring of 64, old and new in turn,
and the median of the ratios with its interval.  Its figures are of the machine it runs on and are not kept here.
"""
_BEHIND_MACHINE = "\nEach figure is"
_READING = """## Where it is slower, and why

- An opening costs several times as much when members fall silent after they confirmed: each is recovered from t group
  elements, checked on arrival.  Nothing but that one mask is learnt; Flower's server puts the key itself together.
- Neighbours grow with the threat: against a head that lies a ring of 1000 needs 62 where Flower is run with 30.
- The threshold PRF is the largest single part of a gateway's round.  It is made when the reading comes, ahead of the
  opening.
- A CMS message costs some 1.2 to 2 ms of asn1crypto beside the curve: more than half on brainpoolP256r1, nearly all on
  secp256r1, whose arithmetic OpenSSL has in assembler.
- A single round with a whole epoch's set-up in it gains least: the set-up is meant to be spread over the epoch.
- A share of few slots is bound by the cost of a call, not by the cipher: about 3.5 µs to start one keystream.
- A share of many slots adds every stream to a sum, which no cipher has to: about a sixth of the cipher's own time.
- Many gateways in one process are computed one after the other, each as in the field, and so they are counted here.
  What a node shares among those of one ring is the public hash of the ring's label and, where both ends of a pair live
  in it, the pair's keystream.  That spares a share of thousands of slots much and one of 16 next to nothing.
- Seven tenths of a gateway's memory in a fleet are libzmq's: 31 KB where a link calls and 37 KB where it is answered,
  two links, two ends each.  Its queues come in chunks of 256 messages, which fill as messages pass: an end that has
  passed 300 messages each way takes 60 to 75 KB.  Some 30 KB are the gateway's own objects: keys and received shares of
  14 pairs, the machines, an event log, its tasks; 4 KB are masks, made for 32 rounds ahead.  The rest is what each
  process needs once, the less a gateway the more it has: 1,000 gateways in four processes pay some 20 KB for it.
- Of the busy time of a process of gateways in a fleet's round (profiled with py-spy, 256 gateways, 411 samples) a
  quarter goes into accounts and their durable records, flushes included, an eighth into calls of libzmq, a seventh into
  the PRF and the self mask, a tenth into the heads; CURVE and TCP come on top, in libzmq's own thread.  Rules that came
  later cost some 5 % for signatures on inputs and confirmations (blame), 5 % for digests of nonces, history and terms
  (incarnations, one history), 3 % for the event log, 2 % for the metering log and 2 % for sealing the store.
"""


def machine() -> dict[str, Any]:
    """What it ran on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="ascii").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("cryptography", "numpy", "pynacl", "pyzmq")},
    }


def write_json(path: Path, title: str, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """One suite's rows with the machine and the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"title": title, "about": dict(about), "rows": [asdict(row) | {"met": row.met} for row in rows]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(fields: dict[str, Any]) -> Row:
    fields = {name: value for name, value in fields.items() if name != "met"}
    for name in ("ours", "peer", "ratio"):
        fields[name] = None if fields[name] is None else Spread(**fields[name])
    fields["target"] = None if fields["target"] is None else Target(**fields["target"])
    return Row(**fields)


def write_markdown(path: Path, documents: Sequence[Path]) -> None:
    """
    A table for each suite's JSON, in the order given.

    Of a suite that is not there the table stays that the file has, or those of suites on other machines would be lost.
    """
    found = [json.loads(each.read_text(encoding="utf-8")) for each in documents if each.is_file()]
    head, known = _known(path)
    if not set(known) - {each["title"] for each in found}:
        head = _HEAD.format(**found[0]["about"]).partition(_BEHIND_MACHINE)[0]
    measured = {each["title"]: _section(each, head) for each in found}
    order = [*known, *(title for title in measured if title not in known)]
    sections = {title: measured.get(title) or known[title] for title in order}
    lines = [line for section in sections.values() for line in section.splitlines()]
    missed = [line.split(" | ")[0].lstrip("| ") for line in lines if " MISSED |" in line]
    held = sum(" met |" in line for line in lines)
    told = f"Targets met, at those dates: {held}.  Missed: {len(missed)}{': ' + '; '.join(missed) if missed else ''}.\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [head + _BEHIND_MACHINE + _HEAD.partition(_BEHIND_MACHINE)[2], told, *sections.values(), _READING]
    path.write_text("\n".join(parts), encoding="utf-8")


def _section(document: dict[str, Any], head: str) -> str:
    about = document["about"]
    machine_ = "" if about["cpu"] in head else f", {about['cpu']}, {about['cores']} cores"
    quick = "; a quick run: few samples, the largest sizes left out" if about["quick"] else ""
    return "\n".join(
        [
            f"## {document['title']}\n",
            f"{about['date']}{machine_}, load {about['load_start']:.1f} to {about['load_end']:.1f}{quick}\n",
            "| what | ours | peer | ratio | target | note |\n| --- | --- | --- | --- | --- | --- |",
            *(_line(_row(row)) for row in document["rows"]),
            "",
        ]
    )


def _known(path: Path) -> tuple[str, dict[str, str]]:
    """What a file says of the machine, and its tables by their titles, without what is said behind them."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, *sections = text.partition("\n## Where it is slower")[0].split("\n## ")
    tables = {section.partition("\n")[0]: f"## {section.rstrip()}\n" for section in sections}
    return head.partition(_BEHIND_MACHINE)[0], tables


def _line(row: Row) -> str:
    clock = " wall" if row.clock == "wall" else ""
    ours = f"{_spread(row.ours)} {row.unit}{clock}"
    peer = "" if row.peer is None else f"{row.peer_name}: {_spread(row.peer)} {row.unit}"
    ratio = "" if row.ratio is None else f"{_spread(row.ratio)}"
    target = (
        "" if row.target is None else f"{row.target} {'met' if row.met else 'unknown' if row.met is None else 'MISSED'}"
    )
    return f"| {row.what} | {ours} | {peer} | {ratio} | {target} | {row.note} |"


def _spread(spread: Spread) -> str:
    if spread.count == 1:
        return _number(spread.median)
    return f"{_number(spread.median)} [{_number(spread.low)}, {_number(spread.high)}]"


def _number(value: float) -> str:
    """Three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def now() -> str:
    """The date and time of a run, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
