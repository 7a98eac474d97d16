"""Triton functions of the fault stream: the generator, a block's hit counts, and its hits (sections 2 to 5)."""

import triton
import triton.language as tl

BLOCK = tl.constexpr(1024)
ACCEPT_ALL = tl.constexpr(1 << 22)
PLANES = tl.constexpr(32)
BIT, CLUSTER, MASK, RANDOM, LATE = (tl.constexpr(kind) for kind in range(5))
_WORD_PLANE, _ACTIVITY_PLANE = tl.constexpr(63), tl.constexpr(62)
_MULTIPLIER_0, _MULTIPLIER_1 = tl.constexpr(0xD2511F53), tl.constexpr(0xCD9E8D57)
_WEYL_0, _WEYL_1 = tl.constexpr(0x9E3779B9), tl.constexpr(0xBB67AE85)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 of counters and a key, all uint32, of shapes that broadcast."""
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, _MULTIPLIER_0)
        low0 = c0 * _MULTIPLIER_0
        high1 = tl.umulhi(c2, _MULTIPLIER_1)
        low1 = c2 * _MULTIPLIER_1
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = k0 + _WEYL_0
        k1 = k1 + _WEYL_1
    return c0, c1, c2, c3


@triton.jit
def block_of(words, blocks):
    """The block that a program takes: the number of its sample, its own there, where the sample begins in memory, the
    block's first word in the sample, and how many words it has."""
    unit = tl.program_id(0)
    element = unit // blocks
    index = unit - element * blocks
    origin = element.to(tl.int64) * words
    begin = index.to(tl.int64) * BLOCK
    limit = tl.minimum(words - begin, BLOCK).to(tl.int32)
    return element, index, origin, begin, limit


@triton.jit
def key_of(seed, sample, block):
    """What the streams of a block have in common (`key` below), from the pointer to an int64 with the seed's bits."""
    bits = tl.load(seed)
    low = bits.to(tl.uint32)
    high = (bits >> 32).to(tl.uint32)
    return (block << 6).to(tl.uint32), sample.to(tl.uint32), low, high


@triton.jit
def _call(quad, plane, site, key):
    """The generator's words for a quad of a plane's stream."""
    block, sample, k0, k1 = key
    return philox(quad.to(tl.uint32), block | plane, sample, site, k0, k1)


@triton.jit
def _pick(r0, r1, r2, r3, which):
    """The word of a call numbered `which` (0 to 3); there are no arrays that a lane could index."""
    first = tl.where(which == 0, r0, r1)
    second = tl.where(which == 2, r2, r3)
    return tl.where(which < 2, first, second)


@triton.jit
def read_process(program, at):
    """Kind, site number and body of the process that begins at `at`, and where the next one begins."""
    kind = tl.load(program + at).to(tl.int32)
    site = tl.load(program + at + 1).to(tl.uint32)
    length = tl.load(program + at + 2).to(tl.int32)
    body = at + 3
    return kind, site, body, body + tl.maximum(length, 0)  # a negative one would never end


@triton.jit
def read_tables(program, body, kind, bit_width):
    """Where each plane's count table begins, and its length: (PLANES,) int32; -1 for every cell.

    A process on words has one table, which comes first.
    """
    plane = tl.arange(0, PLANES)
    first = tl.zeros([PLANES], tl.int32)
    length = tl.zeros([PLANES], tl.int32)
    planes = tl.where(kind <= CLUSTER, bit_width, 1)
    # what stands before the tables: in front of all, and of bits two accepts before each
    at = body + tl.where(kind == MASK, 1, 0) + tl.where(kind == LATE, 5, 0)
    if kind == CLUSTER:
        at += 2 + tl.load(program + body + 1).to(tl.int32)
    accepts = tl.where(kind == BIT, 2, 0)
    # tables have lengths of their own: where one begins is known once those before it were read
    for i in range(planes):
        at += accepts
        n = tl.load(program + at).to(tl.int32)
        first = tl.where(plane == i, at + 1, first)
        length = tl.where(plane == i, n, length)
        at += 1 + tl.maximum(n, 0)
    return first, length


@triton.jit
def count_hits(program, first, length, kind, site, key):
    """How many hits each plane of a block has: (PLANES,) int32, from count words and tables."""
    # four planes share a call of the generator for their count words
    plane = tl.where(kind <= CLUSTER, tl.arange(0, PLANES), _WORD_PLANE)
    counting = (32 + (plane >> 2)).to(tl.uint32)
    r0, r1, r2, r3 = _call(tl.zeros([PLANES], tl.uint32), counting, site, key)
    word = _pick(r0, r1, r2, r3, plane & 3).to(tl.int64)
    low = tl.zeros([PLANES], tl.int32)
    high = tl.maximum(length, 0)
    longest = tl.max(high, 0)
    while longest > 0:  # the thresholds not above the word, by bisection in all tables at once
        middle = (low + high) >> 1
        searching = low < high
        threshold = tl.load(program + first + middle, mask=searching, other=0)
        low = tl.where(searching & (threshold <= word), middle + 1, low)
        high = tl.where(searching & (threshold > word), middle, high)
        longest = longest >> 1
    return tl.where(length < 0, BLOCK, low)


@triton.jit
def draw_hits(hit, plane, every, kind, site, key):
    """Position in the block (int32) and aux (uint32; v on words) of hits numbered `hit` of their planes.

    `hit`, `plane` and `every` (whether the plane's every cell is hit) have shapes that broadcast.
    """
    # a hit on a word takes two of a call's words, its position and v; one on a bit takes one for both
    on_words = kind > CLUSTER
    quad = tl.where(on_words, hit >> 1, hit >> 2)
    of_plane = tl.where(on_words, _WORD_PLANE, plane).to(tl.uint32)
    r0, r1, r2, r3 = _call(quad, of_plane, site, key)
    even = (hit & 1) == 0
    r = tl.where(on_words, tl.where(even, r0, r2), _pick(r0, r1, r2, r3, hit & 3))
    v = tl.where(even, r1, r3)
    aux = tl.where(on_words, v, r >> 10)
    position = (r & 1023).to(tl.int32)
    return tl.where(every, hit, position), aux


@triton.jit
def cluster_sizes(program, body, aux):
    """How many cells each hit of a cluster process strikes, by its aux."""
    size = tl.zeros(aux.shape, tl.int32) + 1
    thresholds = tl.load(program + body + 1).to(tl.int32)
    for j in range(thresholds):
        reached = tl.load(program + body + 2 + j) <= aux.to(tl.int64)
        size += reached.to(tl.int32)
    return size


@triton.jit
def another_code(code, v, mask):
    """The code that a random word fault puts in a code's place."""
    return (code + 1 + tl.umulhi(v, mask)) & mask


@triton.jit
def previous_word(word, columns, rows, channels, inner):
    """The word (int64) that the same processing element produced before, -1 for its first."""
    channel = word // inner % channels
    position = word // (inner * channels) * inner + word % inner
    # before the element's first channel of a position came its last one of the position before
    earlier_position = position - rows
    last = channel + (channels - 1 - channel) // columns * columns
    at = tl.maximum(earlier_position, 0)  # `//` rounds towards 0 here
    earlier = at // inner * inner * channels + last * inner + at % inner
    first = tl.where(earlier_position < 0, -1, earlier)
    return tl.where(channel >= columns, word - columns * inner, first)


@triton.jit
def active(word, bit, site, seed, period):
    """The number (uint32) of each cell that decides whether it shows its fault: it does below the threshold.

    `seed` points at an int64 with the seed's bits.
    """
    position = (word & (BLOCK - 1)).to(tl.int32)
    key = key_of(seed, period, word >> 10)
    r0, r1, r2, r3 = _call(bit * 256 + (position >> 2), _ACTIVITY_PLANE, site.to(tl.uint32), key)
    return _pick(r0, r1, r2, r3, position & 3)
