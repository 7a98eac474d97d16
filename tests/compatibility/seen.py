"""What faults do to a network and to a graph, in few numbers.

Of hwfault it uses what the caller hands in, so that two versions are asked the same questions.
"""

from hashlib import sha256

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper

DRAWS = ((1, 0), (2**63 + 7, 3))
"""The seeds, and the numbers of the first samples, under which plans and graphs are looked at."""
FIRST = 3
"""How many changed words are written out, beside the digest of all."""


def digest(values):
    """What tells arrays of numbers apart: their type, shape and bytes, with zeros of one sign."""
    values = np.ascontiguousarray(values)
    values = values + values.dtype.type(0)  # -0.0 becomes 0.0
    text = f"{values.dtype} {values.shape} ".encode() + values.tobytes()
    return sha256(text).hexdigest()[:16]


def codes_of(values, scale, zero_point, bits):
    """The integers that stand for values, as words of `bits` bits."""
    integers = torch.round(values.double() / scale.double() + zero_point.double()).long()
    return (integers & (1 << bits) - 1).numpy()


def injected(inject, network, plan, inputs, draws, **rules):
    """What a plan does in a forward under each of `draws` (seed, first sample).

    For each run of a site that is its codes after the faults and what was changed; and the outputs, which are asked for
    once more without an observer.
    """
    sites = {}

    def observe(name, before, after, scale, zero_point):
        bits = plan.at(name).site.bit_width
        before, after = (codes_of(values, scale, zero_point, bits) for values in (before, after))
        sites.setdefault(name, []).append(changed(before, after))

    found = []
    with torch.no_grad():
        with inject(network, plan, seed=0, observe=observe, **rules) as injection:
            for injection.seed, injection.first_sample in draws:
                sites.clear()
                output = digest(network(inputs).numpy())
                found.append({"output": output, "sites": dict(sites)})
        with inject(network, plan, seed=0, **rules) as injection:
            for (injection.seed, injection.first_sample), seen in zip(draws, found, strict=True):
                assert digest(network(inputs).numpy()) == seen["output"], "an observer changes the outputs"
    return found


def changed(before, after):
    """The digest of codes after faults, how many words these changed, and the first of them: place, before, after."""
    before, after = before.ravel(), after.ravel()
    at = np.flatnonzero(before != after)
    first = [[int(i), int(before[i]), int(after[i])] for i in at[:FIRST]]
    return {"codes": digest(after), "changed": len(at), "first": first}


def trained(inject, network, plan, inputs, *, seed, gradient):
    """The outputs and gradients of two steps of training under a plan."""
    network = network.train()
    steps = []
    with inject(network, plan, seed=seed, gradient=gradient):
        for _ in range(2):
            network.zero_grad()
            output = network(inputs)
            (output * (torch.arange(output.numel()).reshape(output.shape) % 5 - 2)).sum().backward()
            gradients = {name: digest(p.grad.numpy()) for name, p in network.named_parameters() if p.grad is not None}
            steps.append({"output": digest(output.detach().numpy()), "gradients": gradients})
    network.eval()
    return {"seed": seed, "gradient": gradient, "steps": steps}


def watching(graph):
    """A faulted graph whose fault nodes' outputs are outputs of its own, and their names: op, site and number."""
    out = ModelProto()
    out.CopyFrom(graph)
    present = {info.name for info in graph.graph.output}
    names = {}
    for number, node in enumerate(node for node in graph.graph.node if node.domain == "hwfault"):
        names[node.output[0]] = f"{number} {node.op_type} {site_of(node)}".strip()
        if node.output[0] not in present:
            out.graph.output.append(helper.make_tensor_value_info(node.output[0], kind_of(graph, node), None))
    return out, names


def site_of(node):
    """The site that a fault node says it strikes."""
    return next((entry.value for entry in node.metadata_props if entry.key == "hwfault.site"), "")


def kind_of(graph, node):
    """The type of what a fault node gives, that of the sums in an array."""
    makers = {name: maker for maker in graph.graph.node for name in maker.output}
    maker = node
    while maker is not None and maker.domain == "hwfault":
        maker = makers.get(maker.input[0])
    to = [attribute.i for attribute in maker.attribute if attribute.name == "to"] if maker is not None else []
    return to[0] if maker is not None and maker.op_type == "Cast" and to else TensorProto.FLOAT


def ran(session, run, graph, inputs, draws):
    """What a graph's fault nodes and its outputs give under each of `draws` (seed, first sample).

    The outputs are asked for once more where nobody looks at the nodes.
    """
    watched, names = watching(graph)
    watched, plain = session(watched), session(graph)
    told = [names.get(output.name, output.name) for output in watched.get_outputs()]
    outputs = [names.get(output.name, output.name) for output in plain.get_outputs()]
    found = []
    for seed, first_sample in draws:
        values = run(watched, inputs.numpy(), seed=seed, first_sample=first_sample)
        tensors = dict(zip(told, map(digest, values), strict=True))
        alone = run(plain, inputs.numpy(), seed=seed, first_sample=first_sample)
        assert [tensors[name] for name in outputs] == list(map(digest, alone)), "who looks changes the outputs"
        found.append(tensors)
    return found
