"""
The public side of a ring, kept once for all its members in this process.

Each gateway reads and checks by itself what it is sent.  Then it takes the copy of whoever of its ring came before it,
if that says the very same, and lets its own go: layout and deals of a ring of 64 are a quarter of a megabyte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from protocol import wire
from protocol.dcnet.setup.rings import RingView


@dataclass(frozen=True)
class PublicRing:
    """What a verified layout says of a ring, and what its members dealt."""

    view: RingView
    certificates: Mapping[str, bytes]  # DER by gateway id
    intermediates: Sequence[bytes]
    commitments: dict[int, tuple[bytes, ...]] = field(default_factory=dict, compare=False)  # of each dealer's deal


class PublicRings:
    """Those of a process; each is forgotten with the last gateway that holds it."""

    def __init__(self) -> None:
        self._rings: WeakValueDictionary[bytes, PublicRing] = WeakValueDictionary()

    def share(self, view: RingView, layout: wire.EpochLayout) -> PublicRing:
        """The ring of a layout that its caller has verified."""
        own = PublicRing(view, {member[0]: member[-1] for member in layout.members}, layout.intermediates)
        known = self._rings.get(view.digest)
        if known != own:
            known = self._rings[view.digest] = own
        return known
