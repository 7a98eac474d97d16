"""A layer's accumulators product by product in Python's integers, from the words of the specification alone."""

from itertools import product

from hwfault.stream.array import Array, Axis, Layer


def wrap(value: int, width: int) -> int:
    half = 1 << (width - 1)
    return (value + half) % (2 * half) - half


def limit(value: int, array: Array) -> int:
    half = 1 << (array.width - 1)
    if array.saturate:
        return max(-half, min(half - 1, value))
    return wrap(value, array.width)


def stick(value: int, array: Array, n: int, m: int, step: int) -> int:
    for channels, channel, positions, position, steps, s, and_mask, xor_mask in array.events:
        if (n % channels, m % positions, step % steps) == (channel, position, s):
            code = value % (1 << array.width)
            value = wrap((code & and_mask) ^ xor_mask, array.width)
    return value


def one_sum(products: list[int], array: Array, n: int, m: int) -> int:
    """The accumulator of channel n and position m, from its products in C order."""
    order = array.order or range(len(products))
    ordered = [products[k] for k in order]
    steps = [sum(ordered[i : i + array.step]) for i in range(0, len(ordered), array.step)]
    length = array.pass_steps or len(steps)
    total = 0
    for first in range(0, len(steps), length):
        partial = 0
        for s in range(length):
            partial += steps[first + s] if first + s < len(steps) else 0
            partial = stick(limit(partial, array), array, n, m, s)
        total = limit(total + partial, array)
    return total


def layer_sums(x, w, layer: Layer, array: Array) -> dict[tuple[int, int, int], int]:
    """(element, channel, position) -> accumulator; x (element, input channel, position) and w as nested lookups."""
    sums = {}
    places = list(product(*(range(axis.output) for axis in layer.axes)))
    taps = list(product(*(range(axis.kernel) for axis in layer.axes)))
    per_group = layer.channels // layer.groups
    for b, n in product(range(layer.batch), range(layer.channels)):
        for m, place in enumerate(places):
            terms = []
            for c, (t, tap) in product(range(layer.depth), enumerate(taps)):
                at = input_position(layer.axes, place, tap)
                value = 0 if at is None else int(x[b, n // per_group * layer.depth + c, at])
                terms.append(value * int(w[n, c, t]))
            sums[b, n, m] = one_sum(terms, array, n, m)
    return sums


def input_position(axes: tuple[Axis, ...], place, tap) -> int | None:
    """The number of the input that a kernel index meets at an output, None in the padding."""
    index = 0
    for axis, o, k in zip(axes, place, tap, strict=True):
        at = o * axis.stride - axis.pad + k * axis.dilation
        if not 0 <= at < axis.input:
            return None
        index = index * axis.input + at
    return index
