"""What a site's values must become: encode, the reference's faults on the codes, decode what changed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hwfault.codes import CodeFormat, decode, encode
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.network.sites import quantizers
from hwfault.stream.reference import inject_codes
from tests.helpers.stream import protection_oracle
from tests.helpers.stream.programs import symmetric

FAULTS = {
    "bits": [BitFlips(probability=0.03)],
    "asymmetric": [BitFlips(p01=0.05, p10=0.01)],
    "stuck": [BitFlips(p01=0.0, p10=0.05)],
    "random": [WordFaults(probability=0.1)],
    "lsb": [WordFaults(probability=0.1, effect="lsb")],
    "msb": [WordFaults(probability=0.1, effect="msb")],
    "full": [WordFaults(probability=0.1, effect="full")],
    "clusters": [Clusters(probability=0.02, sizes=[0.5, 0.3, 0.2])],
    "rows": [Clusters(probability=0.02, sizes=[0.5, 0.3, 0.2], axis="word")],
    "several": [
        BitFlips(probability=0.01),
        WordFaults(probability=0.05, sites={"kind": "weight"}),
        BitFlips(p01=0.02, p10=0.1),
        WordFaults(probability=0.05, sites="*act*"),
    ],
}


@dataclass
class Call:
    """One run of a site, as `observe` sees it."""

    name: str
    before: Tensor
    after: Tensor
    scale: Tensor
    zero_point: Tensor

    def codes(self, fmt: CodeFormat) -> tuple[np.ndarray, np.ndarray]:
        """The codes before and after."""
        grid = (self.scale.numpy(), self.zero_point.numpy(), fmt)
        return encode(self.before.numpy(), *grid), encode(self.after.numpy(), *grid)


class Seen(list):
    """An observer: keeps every call."""

    def __call__(self, name, before, after, scale, zero_point):
        assert not before.requires_grad
        assert not after.requires_grad
        self.append(Call(name, *(t.clone() for t in (before, after, scale, zero_point))))

    def of(self, name):
        return [call for call in self if call.name == name]

    @property
    def after(self):
        """The last values of each site after the faults."""
        return {call.name: call.after for call in self}


def faulty(plan, call, seed, samples, step=0):
    """What the reference makes of a site's float32 values: activations have numbers, a parameter a step."""
    site = plan.at(call.name).site
    fmt = CodeFormat(site.bit_width, site.signed)
    scale, zero_point = call.scale.numpy(), call.zero_point.numpy()
    codes = encode(call.before.numpy(), scale, zero_point, fmt)
    words = np.arange(codes.size).reshape(codes.shape)
    words = samples_first(words, site.batch) if site.batch is not None else words
    rows = codes.reshape(-1)[words.reshape(len(words) if site.batched else 1, -1)]
    numbers = list(samples) if site.batched else [step]
    program = plan.program(call.name)
    struck = np.stack(
        [
            inject_codes(row, program=program, seed=seed, sample=int(n), bit_width=site.bit_width)
            for row, n in zip(rows, numbers, strict=True)
        ]
    )
    places = np.empty(codes.size, np.int64)
    places[words.reshape(-1)] = np.arange(codes.size)
    struck = struck.reshape(-1)[places].reshape(codes.shape)
    return torch.from_numpy(np.where(struck == codes, call.before.numpy(), decode(struck, scale, zero_point, fmt)))


def samples_first(values, batch):
    """The words of each sample (samples, words), picked row by row as the specification numbers them."""
    extent = values.shape[batch.axis]
    count = extent // batch.rows
    rows = [[r for r in range(extent) if r // batch.inner % count == sample] for sample in range(count)]
    return np.stack(
        [np.concatenate([values.take([r], batch.axis)[...] for r in own], batch.axis) for own in rows]
    ).reshape(count, -1)


def spy(model, into):
    """The user's own hooks on every quantizer, which note its values in `into`; call the result to take them away."""

    def note(name):
        def hook(proxy, args, out):
            own = name_of_parameter(model, proxy, args[0]) or name
            into.setdefault(own, []).append(getattr(out, "value", out).detach().clone())

        return hook

    handles = [proxy.register_forward_hook(note(name)) for name, proxy in quantizers(model)]
    return lambda: [handle.remove() for handle in handles]


def name_of_parameter(model, proxy, given):
    """The name of the site that a tensor is, where several layers share its quantizer; None elsewhere."""
    layers = [(path, m) for path, m in model.named_modules() if getattr(m, "weight_quant", None) is proxy]
    if len(layers) < 2:
        return None
    return next(f"{path}.weight_quant" for path, layer in layers if layer.weight.data_ptr() == given.data_ptr())


def same_bits(one, other):
    """Equality to the bit, also of NaN and the sign of zero."""
    kinds = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(t.contiguous().view(kinds[t.element_size()]) for t in (one, other)))


def decoded(plan, call, seed, samples, p=0.0):
    """(corrected, detected, miscorrected) memory words of one run of a site whose only process is a protected memory.

    Decoded bit by bit in plain Python; `p` is the probability of each cell to flip where the process is no map of
    permanent cells. An activation has a memory for each sample, a parameter one.
    """
    site, (process,) = plan.at(call.name).site, plan.at(call.name).processes
    fmt = CodeFormat(site.bit_width, site.signed)
    codes = encode(call.before.numpy(), call.scale.numpy(), call.zero_point.numpy(), fmt)
    rows, numbers = (codes.reshape(len(codes), -1), samples) if site.batched else (codes.reshape(1, -1), [0])
    how = process.protection
    memory = protection_oracle.Memory(how.kind, how.data_bits, process.slot, how.on_detected == "due")
    masks = () if process.map is None else (process.map.word, process.map.and_mask, process.map.xor_mask)
    faults = protection_oracle.Map(tuple(zip(*(column.tolist() for column in masks), strict=True)))
    width = protection_oracle.shape(memory)[2]
    drawn = [] if process.map is not None else [symmetric(process.site_number, [p] * width)]
    counts = np.zeros(3, np.int64)
    for row, number in zip(rows, numbers, strict=True):
        counts += protection_oracle.protect(row.tolist(), memory, site.bit_width, drawn, seed, int(number), faults)[1]
    return tuple(counts.tolist())
