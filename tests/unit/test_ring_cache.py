"""What the gateways of one process keep together of a ring, and what they do not."""

import gc
from dataclasses import replace

import pytest

from loadtest.ring import RingSize, make_ring
from node.aggregation.ring_cache import PublicRings
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.rings import RingView, Timing


def view_of(seed: int) -> RingView:
    """Equal for equal seeds, and another object each time, as every gateway makes its own."""
    return make_ring(StandardSuite(), RingSize(6, 5, 3, 3, 3, 4), bytes([seed]) * 32, Timing.spread(1.0, 10.0))[0]


def layout(view: RingView, certificate: bytes = b"certificate") -> wire.EpochLayout:
    members = tuple((each.identity, *each.keys, b"signature", certificate) for each in view.members)
    return wire.EpochLayout(view.epoch, 0, (), view.ring, members, (b"sub-CA",), view.result_key)


def test_members_of_a_ring_hold_one_copy_of_it() -> None:
    rings = PublicRings()
    first = rings.share(view_of(1), layout(view_of(1)))
    assert rings.share(view_of(1), layout(view_of(1))) is first
    assert rings.share(view_of(2), layout(view_of(2))) is not first


@pytest.mark.parametrize("other", ["certificate", "timing"])
def test_who_was_shown_something_else_keeps_that(other: str) -> None:
    """Neither is in the ring's digest: a coordinator that tells two gateways different things gives each its own."""
    rings = PublicRings()
    first = rings.share(view_of(1), layout(view_of(1)))
    view = replace(view_of(1), timing=Timing.spread(2.0, 10.0)) if other == "timing" else view_of(1)
    second = rings.share(view, layout(view, b"another" if other == "certificate" else b"certificate"))
    assert second is not first
    assert second.view == view
    assert set(first.certificates.values()) == {b"certificate"}
    assert second.commitments is not first.commitments


def test_a_ring_is_forgotten_with_its_last_member() -> None:
    rings = PublicRings()
    rings.share(view_of(1), layout(view_of(1)))
    gc.collect()
    assert not len(rings._rings)
