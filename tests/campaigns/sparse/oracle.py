"""The sparse engine's description run again in NumPy, whole images at a time, with any weight changed."""

import itertools

import numpy as np

f32 = np.float32


def outputs_of(description, images, node=None, word=0, change=0):
    """The outputs (images, outputs) with `change` added to a weight of a layer."""
    tensors = [images.reshape(len(images), -1).astype(f32)]
    for number, described in enumerate(description.nodes):
        given = [tensors[i] for i in described.inputs]
        values = KINDS[described.kind](description, described, given, (word, change) if number == node else None)
        values = values.reshape(len(images), described.channels, described.positions)
        for step in described.steps:
            values = stepped(description.constants, step, values)
        tensors.append(values.reshape(len(images), -1).astype(f32))
    return tensors[-1]


def stepped(constants, step, x):
    """One step on values (images, channels, positions), which are float64 integers in front of a layer's first step."""
    channels = x.shape[1] if step.each else 1
    first, second = (constants[step.at + i * channels :][:channels].reshape(-1, 1) for i in (0, 1))
    kind = ("affine", "relu", "quantize", "sign", "times", "plus", "over", "round", "clip")[step.kind]
    if kind == "affine":
        return (x.astype(np.float64) * first.astype(np.float64) + second.astype(np.float64)).astype(f32)
    assert x.dtype == f32
    if kind == "quantize":
        rounding = (np.rint, np.floor, np.ceil, np.trunc)[step.rounding]
        integers = np.clip(rounding(x / first + second), f32(step.least), f32(step.most))
        return (integers - second) * first
    return {
        "relu": lambda: np.maximum(x, f32(0)),
        "sign": lambda: np.where(x >= 0, first, -first),
        "times": lambda: x * first,
        "plus": lambda: x + first,
        "over": lambda: x / first,
        "round": lambda: np.rint(x),
        "clip": lambda: np.clip(x, first, second),
    }[kind]()


def axes_of(numbers):
    rank, rest = numbers[0], numbers[1:]
    assert len(rest) == 6 * rank
    return [tuple(rest[6 * i : 6 * i + 6]) for i in range(rank)]


def windows(axes):
    """For each output, in C order, the input of each tap, in C order; None in the padding."""
    for output in itertools.product(*(range(axis[1]) for axis in axes)):
        taps = []
        for kernel in itertools.product(*(range(axis[2]) for axis in axes)):
            index = 0
            for o, k, (length, _, _, stride, padding, dilation) in zip(output, kernel, axes, strict=True):
                at = o * stride - padding + k * dilation
                inside = index is not None and 0 <= at < length
                index = index * length + at if inside else None
            taps.append(index)
        yield taps


def layer(description, node, given, changed):
    groups, depth, _largest, at = node.numbers[:4]
    axes = axes_of(node.numbers[4:])
    taps = int(np.prod([axis[2] for axis in axes]))
    weights = description.weights[at : at + node.channels * depth * taps].astype(np.int64)
    if changed:
        weights[changed[0]] += changed[1]
    weights = weights.reshape(node.channels, depth, taps)
    x = given[0].reshape(len(given[0]), groups * depth, -1)
    assert np.array_equal(x, np.rint(x))
    out = np.zeros((len(x), node.channels, node.positions), np.float64)
    for position, inputs in enumerate(windows(axes)):
        for tap, index in enumerate(inputs):
            if index is None:
                continue
            for channel in range(node.channels):
                group = channel // (node.channels // groups)
                mine = x[:, group * depth : (group + 1) * depth, index].astype(np.int64)
                out[:, channel, position] += mine @ weights[channel, :, tap]
    return out


def max_pool(_description, node, given, _changed):
    axes = axes_of(node.numbers)
    x = given[0].reshape(len(given[0]), node.channels, -1)
    columns = [x[:, :, [i for i in inputs if i is not None]].max(axis=2) for inputs in windows(axes)]
    return np.stack(columns, axis=2)


def move(_description, node, given, _changed):
    x = np.concatenate(given, axis=1)
    table = np.array(node.numbers)
    return np.where(table < 0, f32(0), x[:, np.maximum(table, 0)])


KINDS = (
    lambda _description, _node, given, _changed: given[0],
    layer,
    lambda _description, _node, given, _changed: given[0] + given[1],
    max_pool,
    move,
)
