"""Masks as rows of bits: 64 pixels a machine word, many frames in one array operation.

Column x of a row is bit ``x % 64`` of word ``x // 64``. Every row is followed by spare zero words, so that an array can be shifted
sideways as one long stream of bits: what leaves a row falls into the spare words and not into the next row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Part = tuple[slice, slice]

_WORD = 64
_TYPE = np.dtype("<u8")  # packed bytes are little-endian, whatever the machine is
_POPCOUNT_16 = np.unpackbits(np.arange(1 << 16, dtype="<u2").view(np.uint8)).reshape(-1, 16).sum(1).astype(np.uint8)


class Packed(NamedTuple):
    """Masks [n,H,W] as bits.

    Attributes:
        words: [n,H,ceil(W/64)], bits beyond column W - 1 are zero.
        width: W.
    """

    words: Words
    width: int


def pack(masks: NDArray[np.bool_] | NDArray[np.uint8]) -> Packed:
    """Bits of masks [n,H,W]; every value but zero counts as set."""
    n, height, width = masks.shape
    octets = np.packbits(masks, axis=-1, bitorder="little")
    columns = -(-width // _WORD)
    if octets.shape[-1] != 8 * columns:
        wide = np.zeros((n, height, 8 * columns), np.uint8)
        wide[..., : octets.shape[-1]] = octets
        octets = wide
    return Packed(octets.view(_TYPE), width)


def unpack(packed: Packed) -> NDArray[np.bool_]:
    """Return the masks [n,H,W] of the bits."""
    octets = np.ascontiguousarray(packed.words).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=packed.width, bitorder="little").view(np.bool_)


def count(words: Words) -> NDArray[np.int64]:
    """Bits that are set in each of the n masks [n,rows,columns]: int64 [n]."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words).sum((1, 2), dtype=np.int64))
    # NumPy 1.x
    return np.asarray(_POPCOUNT_16[np.ascontiguousarray(words).view(np.uint16)].sum((1, 2), dtype=np.int64))


def extent(words: Words) -> Part:
    """Return rows and words that hold all set bits of all masks, and one more on each side for the boundary."""
    any_mask = np.bitwise_or.reduce(words, axis=0)
    found = []
    for axis in (1, 0):
        used = np.flatnonzero(any_mask.any(axis=axis))
        if not used.size:
            return slice(0, 1), slice(0, 1)
        found.append(slice(max(int(used[0]) - 1, 0), min(int(used[-1]) + 2, any_mask.shape[1 - axis])))
    return found[0], found[1]


def boundary(packed: Packed, gap_words: int = 1, part: Part | None = None) -> Words:
    """Return where a mask differs from its right, lower or lower right neighbor, as the DAVIS scorer draws boundaries.

    On the last row and column only the neighbors inside the picture are looked at.

    Args:
        packed: the masks [n,H,W].
        gap_words: zero words to leave after each row, at least 1.
        part: rows and words to look at; None = all. Outside of it nothing may be set, nor on its rim (see `extent`).

    Returns:
        [n,rows,words of `part` + gap_words].
    """
    rows, columns = part or (slice(None), slice(None))
    here = packed.words[:, rows, columns]
    n, height, width = here.shape
    stream = np.zeros((n, height, width + gap_words), _TYPE)
    stream[..., :width] = here
    first = (columns.start or 0) * _WORD
    if packed.width - first <= width * _WORD:
        # The last column once more, to its right: so it has no neighbor there that differs.
        _copy_column(stream, packed.width - 1 - first)
    one, all_four = stream.copy(), stream.copy()
    one[:, :-1] |= stream[:, 1:]
    all_four[:, :-1] &= stream[:, 1:]
    spare = np.empty_like(stream), np.empty_like(stream)
    _or_lower(one, 1, spare)
    _and_lower(all_four, spare)
    one ^= all_four
    one[..., :width] &= pack(np.ones((1, 1, packed.width), np.bool_)).words[..., columns]
    one[..., width:] = 0
    return one


def dilate(words: Words, radius: int) -> Words:
    """Bits within the Euclidean distance `radius` of a set bit.

    The disk is a stack of rows: the row at height dy is 2 * w + 1 wide with w = floor(sqrt(radius^2 - dy^2)). Widening the whole
    picture step by step gives each of these rows once, and each is added at dy above and below.

    Args:
        words: [n,rows,columns] with at least `radius` zero bits after each row.
        radius: pixels, >= 0.

    Returns:
        Same shape; the spare bits after each row mean nothing.
    """
    rows = words.shape[1]
    wide, out = words.copy(), np.zeros_like(words)
    spare = np.empty_like(words), np.empty_like(words)
    reach = 0
    for dy in range(min(radius, rows - 1), -1, -1):
        target = math.isqrt(radius * radius - dy * dy)
        while reach < target:
            step = min(target - reach, 2 * reach + 1, _WORD - 1)
            _or_lower(wide, step, spare)
            _or_higher(wide, step, spare)
            reach += step
        if dy:
            out[:, dy:] |= wide[:, :-dy]
            out[:, :-dy] |= wide[:, dy:]
        else:
            out |= wide
    return out


def gap_words(radius: int) -> int:
    """Spare words a row that `dilate` needs."""
    return -(-radius // _WORD)


def _or_lower(words: Words, step: int, spare: tuple[Words, Words]) -> None:
    """Add the bits `step` (1 to 63) columns lower, in place; the array is one stream of bits."""
    np.right_shift(words, step, out=spare[0])
    np.left_shift(words, _WORD - step, out=spare[1])
    words |= spare[0]
    words.reshape(-1)[:-1] |= spare[1].reshape(-1)[1:]


def _or_higher(words: Words, step: int, spare: tuple[Words, Words]) -> None:
    """Add the bits `step` (1 to 63) columns higher, in place."""
    np.left_shift(words, step, out=spare[0])
    np.right_shift(words, _WORD - step, out=spare[1])
    words |= spare[0]
    words.reshape(-1)[1:] |= spare[1].reshape(-1)[:-1]


def _and_lower(words: Words, spare: tuple[Words, Words]) -> None:
    """Keep the bits whose right neighbor is set, in place."""
    np.right_shift(words, 1, out=spare[0])
    np.left_shift(words, _WORD - 1, out=spare[1])
    spare[0].reshape(-1)[:-1] |= spare[1].reshape(-1)[1:]
    words &= spare[0]


def _copy_column(words: Words, column: int) -> None:
    """Set column + 1 as `column` is."""
    (word, bit), (next_word, next_bit) = divmod(column, _WORD), divmod(column + 1, _WORD)
    words[..., next_word] |= (words[..., word] >> np.uint64(bit) & np.uint64(1)) << np.uint64(next_bit)
