"""
Pedersen commitments to the slots of a contribution, and the second DC-net blinding_vector that sums their blindings.

A member commits to the value x of a slot by C = x·G + ρ·H. Nobody learns x from C (ρ is uniform: perfectly hiding),
and nobody can open C to another value without knowing the discrete logarithm of H (binding). Sums of commitments commit
to sums, so a coordinator that learns S = Σx and R = Σρ from the two sums checks ΣC = S·G + R·H: the
total is that of the very values the members committed to, and the same commitments serve billing later. Source:
Pedersen, Crypto 1991, section 3. H = HashToGroup of a fixed text, so nobody can have chosen it with a trapdoor.

Two moduli meet here, and that needs care:

- The values count mod 2^64 (a word; signed slots in two's complement), commitments count mod the group order L of
  253 bits. A word's residue does not determine the integer; a bound does. Each member contributes a value of [0, 2^k)
  with k of its slot (setup.ranges, at most 52), so the true total lies in the range of one signed word, `total_of_word`
  recovers it exactly, and it is far from wrapping mod L.
- A dishonest member may commit to any residue mod L and share any word. If the two disagree as integers, by as little
  as a multiple of 2^64, then ΣC and S disagree and the ring's total stays unverified; errors pass only if they cancel
  over the ring, and then the total is that of the commitments all the same. A wrong reading that is both committed and
  shared is not detected: commitments bind a member to its value, they do not make it true. Its size is limited by
  range proofs, which are drawn (crypto.range_proof).

The blinding vector: every pair of neighbours and every self mask adds scalars mod L made from 64 bytes of keystream
for each slot, reduced (bias below 2^-250; 32 bytes would be biased noticeably). It keeps every rule of the values,
has the same roster, and is opened by the same reveals. R without the single ρ tells nothing.

A commitment and its blinding belong to one contribution, not to an attempt: repeated attempts repeat C, so two
attempts cannot be played against each other, and billing refers to one C.  The blinding is drawn for it, kept with the
value and deleted with it.  No key gives it again: one that did would open every commitment of the past to whoever finds
that key, and would blind what a gateway contributes after its store was lost by the ρ of what it contributed before,
so that C - C' is the reading.
"""

from collections.abc import Sequence

from protocol.dcnet.crypto.group import SCALAR_SIZE, Group, decode_scalar, encode_scalar, require_element, wide_scalar
from protocol.errors import LocalProtocolError, RemoteProtocolError

WORD_MODULUS = 2**64
BLINDING_MASK_SIZE = 64

_GENERATOR_DOMAIN = b"stromkreis/1 Pedersen generator H"

BlindingVector = tuple[int, ...]


class Pedersen:
    """The commitment scheme on one group; holds the second generator, else stateless."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.blinding_generator = group.hash_to_group(_GENERATOR_DOMAIN, b"")

    def commit(self, value: int, blinding: int) -> bytes:
        """
        Give value·G + blinding·H; the value may be negative, the blinding is a uniform scalar.

        Raises `LocalProtocolError` for a blinding out of 1..order - 1 or a value that is no signed 64-bit integer.
        """
        if not 0 < blinding < self.group.order:
            raise LocalProtocolError("a blinding is a scalar from 1 to order - 1")
        if not -WORD_MODULUS // 2 <= value < WORD_MODULUS // 2:
            raise LocalProtocolError("a committed value is a signed 64-bit integer")
        return self._point(value, blinding)

    def opens(self, commitment: bytes, value: int, blinding: int) -> bool:
        """Whether `commitment` (a sum, possibly) is value·G + blinding·H; both are taken mod the order."""
        return commitment == self._point(value, blinding)

    def total(self, commitments: Sequence[bytes]) -> bytes:
        """The sum of the members' commitments to one slot; raises `RemoteProtocolError` for what is no element."""
        result = self.group.multiply_base(0)
        for commitment in commitments:
            result = self.group.add(result, require_element(self.group, commitment))
        return result

    def verify_totals(
        self, commitments: Sequence[Sequence[bytes]], totals: Sequence[int], blindings: Sequence[int]
    ) -> bool:
        """
        Whether the totals of a ring are those that its members committed to.

        `commitments` has a row for each member in the sum and a column for each committed slot; `totals` are integers
        (see `total_of_word`), `blindings` the opened blinding vector. False if any slot disagrees: the ring is
        unverified as a whole. Raises `RemoteProtocolError` for rows of the wrong length or commitments that are no
        elements.
        """
        if len(totals) != len(blindings):
            raise LocalProtocolError("one blinding total for each committed slot")
        if any(len(row) != len(totals) for row in commitments):
            raise RemoteProtocolError("commitment_count", f"expected {len(totals)} commitments")
        return all(
            self.opens(self.total([row[slot] for row in commitments]), totals[slot], blindings[slot])
            for slot in range(len(totals))
        )

    def _point(self, value: int, blinding: int) -> bytes:
        group = self.group
        return group.add(group.multiply_base(value), group.multiply(blinding, self.blinding_generator))


def blinding_of(group: Group, *, uniform: bytes) -> int:
    """A blinding from 64 uniform bytes: a scalar from 1 to order - 1, with a bias below 2^-250."""
    return 1 + wide_scalar(group, uniform=uniform) % (group.order - 1)


def total_of_word(word: int, *, signed: bool) -> int:
    """The integer that a summed word of the values stands for, provided that the total is one of a word."""
    if not 0 <= word < WORD_MODULUS:
        raise LocalProtocolError("a word has 64 bits")
    return word - WORD_MODULUS if signed and word >= WORD_MODULUS // 2 else word


def blinding_masks(group: Group, keystream: bytes) -> BlindingVector:
    """One uniform scalar for each `BLINDING_MASK_SIZE` bytes of keystream, which must be a whole number of these."""
    if len(keystream) % BLINDING_MASK_SIZE:
        raise LocalProtocolError(
            f"the keystream of the blinding blinding_vector comes in blocks of {BLINDING_MASK_SIZE} bytes"
        )
    return tuple(
        wide_scalar(group, uniform=keystream[start : start + BLINDING_MASK_SIZE])
        for start in range(0, len(keystream), BLINDING_MASK_SIZE)
    )


def add_blinding_vectors(group: Group, *blinding_vectors: BlindingVector) -> BlindingVector:
    """The slot-wise sum mod the order of blinding_vectors of one length."""
    return tuple(sum(slot) % group.order for slot in zip(*blinding_vectors, strict=True))


def subtract_blinding_vectors(
    group: Group, blinding_vector: BlindingVector, *blinding_vectors: BlindingVector
) -> BlindingVector:
    """`blinding_vector` minus all `blinding_vectors`, slot-wise mod the order."""
    return tuple(
        (first - sum(rest)) % group.order for first, *rest in zip(blinding_vector, *blinding_vectors, strict=True)
    )


def encode_blinding_vector(group: Group, blinding_vector: BlindingVector) -> bytes:
    """32 bytes little-endian for each slot."""
    return b"".join(encode_scalar(group, scalar) for scalar in blinding_vector)


def decode_blinding_vector(group: Group, data: bytes, slot_count: int) -> BlindingVector:
    """Strict inverse of `encode_blinding_vector`.  Raises RemoteProtocolError for a wrong size or scalar."""
    if len(data) != slot_count * SCALAR_SIZE:
        raise RemoteProtocolError("lane_size", f"{len(data)} bytes instead of {slot_count * SCALAR_SIZE}")
    return tuple(decode_scalar(group, data[start : start + SCALAR_SIZE]) for start in range(0, len(data), SCALAR_SIZE))
