"""
What a scheme sends: messages of (time, sender, receiver, payload), for one group of meters over many slots.

A scheme sends the same messages in every slot, so a transcript is a `Shape` (the messages of one slot) and arrays over
the slots.  In the ideal model a payload is a `Form`: an integer combination of the members' readings and of secrets
that some parties hold (masks, keys, blindings).  The real cryptography of a scheme (`loadtest.lab.real`) fills the same
shape with numbers modulo `Shape.modulus`.  Who learns what from it is decided in `derivation`, never here.

Parties are strings: `meter:3` is the member at position 3 of its group, the others have a role's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

EMP, GWA, HEAD, TTP, AUTHORITY, STORE, WAN = "emp", "gwa", "head", "ttp", "authority", "store", "wan"
LATENCY_S = 0.08
JITTER_S = 40.0
MODULUS = 2**64


def meter(position: int) -> str:
    """The party that is the member at this position."""
    return f"meter:{position}"


@dataclass(frozen=True, slots=True)
class Form:
    """A sum of readings (by member position) and secrets (by name), each with an integer coefficient."""

    readings: Mapping[int, int] = field(default_factory=dict)
    secrets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message of a slot.

    `sealed_for`: the parties with the key, where an envelope goes through others; None: who receives it reads it.
    `alias`: the receiver sees a pseudonym in place of the sender. `after`: the messages (indices) that it waits for;
    without any it is sent when the meter's slot has ended. `size_bytes` is the payload on the wire.
    """

    sender: str
    receiver: str
    form: Form
    sealed_for: frozenset[str] | None = None
    alias: bool = False
    after: tuple[int, ...] = ()
    size_bytes: int = 8


@dataclass(frozen=True, eq=False)
class Shape:
    """
    The messages of one slot in a group of `size` members; `holders` says who knows each secret.

    `played_by` names parties that are members too: a ring's head is a gateway of its ring.
    """

    size: int
    messages: tuple[Message, ...]
    holders: Mapping[str, frozenset[str]] = field(default_factory=dict)
    played_by: Mapping[str, str] = field(default_factory=dict)
    modulus: int = MODULUS

    @property
    def parties(self) -> frozenset[str]:
        """Everybody who sends or receives, without the meters."""
        named = {each for message in self.messages for each in (message.sender, message.receiver)}
        return frozenset(each for each in named if not each.startswith("meter:"))


class Row(NamedTuple):
    """One message of a transcript; `sender` is what the receiver sees."""

    time_s: float
    sender: str
    receiver: str
    payload: Form | int


@dataclass(frozen=True)
class Batch:
    """
    One group's messages over its slots.

    `group[p]` is the household at position p, `submitted[t, p]` what it sends in slot `slots[t]` (its reading in W,
    or what its device made of it; for bills the amount in thousandths of a cent), `times_s[t, m]` when message m
    left, `aliases[t, m]` the pseudonym on it (-1: none), `payload[t, m]` the numbers of a real run.
    """

    shape: Shape
    group: NDArray[np.int64]
    slots: NDArray[np.int64]
    submitted: NDArray[np.int64]
    times_s: NDArray[np.float64]
    aliases: NDArray[np.int64] | None = None
    payload: NDArray[np.object_] | None = None
    quantity: str = "power_w"

    def rows(self) -> Iterator[Row]:
        """Every message in order of time; for small transcripts."""
        count = len(self.shape.messages)
        for flat in np.argsort(self.times_s, axis=None, kind="stable"):
            slot, index = divmod(int(flat), count)
            message = self.shape.messages[index]
            alias = -1 if self.aliases is None else int(self.aliases[slot, index])
            yield Row(
                float(self.times_s[slot, index]), message.sender if alias < 0 else f"pseudonym {alias}",
                message.receiver, message.form if self.payload is None else int(self.payload[slot, index]),
            )  # fmt: skip


@dataclass(frozen=True)
class Transcript:
    """
    Everything that a scheme sent; `owners` maps pseudonyms to households: truth, for scoring alone.

    `household_count` is that of the whole area; `slot_s` the seconds of a slot.
    """

    scheme: str
    slot_s: int
    household_count: int
    batches: Sequence[Batch]
    owners: Mapping[int, int] = field(default_factory=dict)


def send_times(shape: Shape, slot_ends_s: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """
    When each message leaves, shape (slots, messages), seconds.

    A meter has an offset of its own within the first `JITTER_S` after a slot's end (its clock and its place in the
    poll order); what waits for others leaves an exponential time of mean `LATENCY_S` after the last of them came.
    """
    slots, count = len(slot_ends_s), len(shape.messages)
    offsets_s = rng.uniform(0.0, JITTER_S, shape.size)
    times_s = np.zeros((slots, count), order="F")  # written by message
    waits: tuple[int, ...] = ()
    ready_s = slot_ends_s
    for index, message in enumerate(shape.messages):
        if message.after:
            if message.after != waits or max(waits) >= index:
                waits = message.after
                ready_s = times_s[:, [each for each in waits if each < index]].max(axis=1)
            times_s[:, index] = ready_s + rng.exponential(LATENCY_S, slots)
        else:
            kind, _, position = message.sender.partition(":")
            offset_s = offsets_s[int(position)] if kind == "meter" else 0.0
            times_s[:, index] = slot_ends_s + offset_s + rng.exponential(0.5, slots)
    return times_s
