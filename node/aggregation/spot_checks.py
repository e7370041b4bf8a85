"""
What a gateway asks for before it deals to a ring whose layout has held: joins of other rings, drawn at random.

Members of its own ring it has checked all.  An invented one in another ring makes the area look larger than it is; that
many are asked for that a tenth of such is found (protocol.dcnet.setup.crowd).  The draw stays the same however often a
layout is shown, and list, layout and answer are what proves a lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocol import wire
from protocol.dcnet.setup.beacon import ListEntry
from protocol.dcnet.setup.crowd import choose_spot_checks
from protocol.dcnet.setup.epoch import VerifyMember, check_spot_checks
from protocol.dcnet.setup.rings import RingView

REFUSED_LAYOUT = bytes(32)
"""Stands for the digest of a layout in an epoch in which none is taken any more."""
_EXTRA_BITS = 64  # beyond those of a number: the remainder's bias is below 2^-64


class SpotChecks:
    """Those of one layout, which has held; `random_bits(count)` is a uniform integer of so many bits."""

    def __init__(
        self, call: wire.EpochCall, entries: Sequence[ListEntry], layout: wire.EpochLayout, view: RingView,
        position: int, random_bits: Callable[[int], int],
    ) -> None:  # fmt: skip
        self.layout = layout
        self.view = view
        self.position = position
        self._call = call
        self.chosen = choose_spot_checks(
            entries,
            [member.identity for member in view.members],
            lambda count: random_bits(count.bit_length() + _EXTRA_BITS) % count,
        )

    def request(self) -> wire.SpotCheck:
        """What the coordinator is asked for."""
        return wire.SpotCheck(self._call.epoch, self._call.try_, tuple(each.identity for each in self.chosen))

    def verify(self, answer: wire.SpotCheckAnswer, verify_member: VerifyMember) -> None:
        """Return if all that was asked for holds.  Raises RemoteProtocolError as `check_spot_checks` does."""
        check_spot_checks(self._call, self.chosen, answer.members, self.layout.intermediates, verify_member)
