"""Small networks at random, as the sparse engine describes them."""

import numpy as np
from hypothesis import strategies as st

from hwfault.campaigns.sparse import description as d
from hwfault.campaigns.sparse.builder import Builder, Value
from hwfault.codes import CodeFormat, integers
from hwfault.program.processes import Site


class Drawn:
    """A network that grows by one random operation after the other; values are images of one or two axes."""

    def __init__(self, draw):
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.builder, self.sites = Builder(), {}
        rank = draw(st.integers(1, 2))
        self.shape = (draw(st.integers(1, 3)), *(draw(st.integers(2, 5)) for _ in range(rank)))
        self.value = self.quantized(Value(0, (1, *self.shape), alone=True))

    def step(self, value, kind, constants=(), **rest):
        return self.builder.step(value, kind, constants, "step", **rest)

    def quantized(self, value):
        """An activation of 1 to 8 bits, as integers, on a grid of its own; float scales, or zero points."""
        bits, signed = self.draw(st.integers(2, 8)), self.draw(st.booleans())
        scale = np.float32(self.rng.uniform(0.05, 2))
        zero_point = 0 if signed else int(self.draw(st.sampled_from((0, 0, 1 << bits - 1))))
        least = -(1 << bits - 1) + self.draw(st.integers(0, 1)) if signed else 0
        most = (1 << bits - 1) - 1 if signed else (1 << bits) - 1
        if self.draw(st.booleans()):
            value = self.step(value, d.RECTIFY)
        rounding = self.draw(st.integers(0, 3))
        value = self.step(value, d.QUANTIZE, [scale, np.float32(zero_point)], least=least, most=most, rounding=rounding)
        return self.step(self.step(value, d.DIVIDE, [scale]), d.ROUND)

    def weights(self, shape):
        """Codes of 2 to 8 bits with a zero point, their integers, and the site that they are."""
        signed = self.draw(st.booleans())
        form = CodeFormat(self.draw(st.integers(2, 8)), signed)
        zero_point = 0 if signed else 1 << form.bit_width - 1
        codes = self.rng.integers(0, 1 << form.bit_width, shape).astype(np.uint32)
        largest = max(abs(form.low - zero_point), abs(form.high - zero_point))
        return codes, form, integers(codes, form) - zero_point, largest

    def layer(self, value, groups, outputs, axes, shape, *, flips=True):
        depth = value.shape[1] // groups
        codes, form, weights, largest = self.weights((outputs, depth, *(axis.kernel for axis in axes)))
        made = self.builder.layer(value, weights, largest, groups, axes, (1, *shape), "layer")
        if flips:
            name = f"layer{len(self.sites)}"
            site = Site(
                name=name, kind="weight", bit_width=form.bit_width, signed=form.signed, layer="", shape=codes.shape
            )
            self.sites[name] = d.WeightSite(site, made.tensor - 1, codes.reshape(-1), form)
        each = self.draw(st.booleans())
        along = (1, outputs, *[1] * (len(shape) - 1)) if each else (1,) * (len(shape) + 1)
        multiplier = self.rng.uniform(-0.1, 0.3, along).astype(np.float32)
        return self.step(made, d.AFFINE, [multiplier, self.rng.normal(0, 1, along).astype(np.float32)])

    def convolution(self):
        channels = self.value.shape[1]
        groups = self.draw(st.sampled_from([g for g in (1, channels) if channels % g == 0]))
        outputs = groups * self.draw(st.integers(1, 3))
        axes = [self.axis(length) for length in self.value.shape[2:]]
        shape = (outputs, *(axis.output for axis in axes))
        self.value = self.quantized(self.layer(self.value, groups, outputs, axes, shape))

    def axis(self, length, pads=2):
        kernel, stride = self.draw(st.integers(1, 3)), self.draw(st.integers(1, 2))
        dilation, padding = self.draw(st.integers(1, 2)), self.draw(st.integers(0, pads))
        reach = dilation * (kernel - 1) + 1
        padding = max(padding, -(-(reach - length) // 2))
        return d.Axis(length, (length + 2 * padding - reach) // stride + 1, kernel, stride, padding, dilation)

    def residual(self):
        """A convolution that keeps the shape, added to what goes into it."""
        before, channels = self.value._replace(alone=False), self.value.shape[1]
        axes = [d.Axis(length, length, 3, 1, 1, 1) for length in before.shape[2:]]
        inner = self.layer(before, 1, channels, axes, before.shape[1:])
        inner = self.step(inner, d.QUANTIZE, [np.float32(0.5), np.float32(0)], least=-8, most=7)
        self.value = self.quantized(self.builder.add(d.ADD, [inner, before], before.shape, "add", []))

    def pool(self):
        axes = [d.Axis(n, -(-n // 2), min(n, 2), 2, 0, 1) for n in self.value.shape[2:]]  # the last window may be cut
        shape = (1, self.value.shape[1], *(axis.output for axis in axes))
        numbers = [len(axes), *(number for axis in axes for number in axis)]
        self.value = self.builder.add(d.MAX_POOL, [self.value], shape, "pool", numbers)

    def concatenation(self):
        """The values beside their own, moved by one channel."""
        shape = (1, 2 * self.value.shape[1], *self.value.shape[2:])
        once = np.arange(self.value.size)
        positions = int(np.prod(shape[2:]))
        table = np.concatenate([once, np.roll(once, positions) + self.value.size])
        table[self.rng.integers(0, table.size)] = -1
        self.value = self.builder.move([self.value, self.value], table.reshape(shape), "concat")

    def finished(self):
        """A linear layer to three outputs, which have no quantizer."""
        flat = self.value._replace(shape=(1, self.value.size))
        out = self.layer(flat, 1, 3, [], (3,))
        assert out.tensor == len(self.builder.nodes)
        builder = self.builder
        return d.Description(tuple(builder.nodes), builder.constants, builder.weights, self.shape, 3, self.sites, {})


OPERATIONS = (Drawn.convolution, Drawn.residual, Drawn.pool, Drawn.concatenation)


@st.composite
def networks(draw):
    """A description and three images for it."""
    network = Drawn(draw)
    for operation in draw(st.lists(st.sampled_from(OPERATIONS), max_size=4)):
        if network.value.size > 60:
            break
        operation(network)
    images = network.rng.normal(0, 2, (draw(st.integers(1, 9)), *network.shape)).astype(np.float32)
    return network.finished(), images
