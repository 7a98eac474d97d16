"""Faults that are named one by one: what they become, that every engine strikes exactly these, and what is refused."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import hwfault as hf
from hwfault.codes import CodeFormat
from hwfault.errors import ModelError, PlanError
from hwfault.graph.read.nodes import fault_node
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.run.session import load_model, run, session
from hwfault.graph.run.strike import strike_codes
from hwfault.laws.models import FaultList
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.plan.listing import faults_at
from hwfault.stream.mechanism import MapOperands
from tests.cli.conftest import good, hwfault
from tests.helpers.graph.running import by_qonnx
from tests.helpers.injection.networks import batch, build
from tests.helpers.laws.cell_cases import ACT, SITES, WEIGHT, cell, cells, plan_of, some_cells
from tests.helpers.stream.triton_here import OLDEST
from tests.helpers.torch_ops.operators import fault_map
from tests.plan.test_listed_is_struck import Seen, known_sites, network


def by_hand(codes, given, numbers):
    """The codes (samples, words) after the cells' faults, one by one, where the samples have these numbers.

    Cells that name a sample or step strike where that is the number; a cell strikes what the ones before left.
    """
    after = codes.tolist()
    for row, number in zip(after, numbers, strict=True):
        for one in given:
            when = one.get("sample", one.get("step"))
            if when is None or when == number:
                bit = 2 ** one["bit"]
                low = row[one["word"]] // bit % 2
                row[one["word"]] += {"flip": bit - 2 * low * bit, "stuck_0": -low * bit}.get(
                    one["kind"], bit - low * bit
                )
    return after


# what they become


def test_cells_of_every_sample_are_a_map():
    plan = plan_of(cell(word=20, bit=4), cell(word=3, bit=0, kind="stuck_1"), cell(word=3, bit=2, kind="stuck_0"))
    (process,) = plan.at("act").processes
    assert (process.kind, process.permanent) == ("map", True)
    assert [column.tolist() for column in process.map.cells()] == [[3, 3, 20], [0, 2, 4], [2, 1, 0]]
    assert plan.names == ("act",)
    assert plan.stream is None


def test_cells_that_name_their_sample():
    plan = plan_of(cell(sample=2**32 - 1), cell(sample=4, bit=1), cell("w", 9, 3, "stuck_0", step=7), cell("w", 1))
    (sampled,), (always, stepped) = plan.at("act").processes, plan.at("w").processes
    assert [column.tolist() for column in sampled.map.cells()] == [[4, 2**32 - 1], [0, 0], [1, 0], [0, 0]]
    assert [column.tolist() for column in stepped.map.cells()] == [[7], [9], [3], [1]]
    assert always.map.word.tolist() == [1]
    assert plan.stream == "1.1"
    assert "1 to 4 faults" in str(plan)


def test_known_answer():
    """Two samples of the words 0 to 20, and the second of the numbers 6 and 7."""
    given = [cell(word=1), cell(word=2, kind="stuck_0", bit=1, sample=7), cell(word=3, kind="stuck_1", bit=4, sample=6)]
    plan, codes = plan_of(*given), np.arange(21, dtype=np.uint32)[None].repeat(2, 0)
    for step in plan.steps("act"):
        codes = strike_codes(step, codes, 0, np.array([6, 7]), True)
    assert codes[:, :5].tolist() == [[0, 0, 2, 19, 4], [0, 0, 0, 3, 4]]
    assert codes[:, 5:].tolist() == [list(range(5, 21))] * 2


def test_an_alias_is_the_site():
    (process,) = plan_of(cell("also.w", 3)).at("w").processes
    assert process.map.word.tolist() == [3]


def test_a_plan_is_read_again():
    plan = plan_of(cell(word=3), cell(word=3, bit=1, sample=2), cell("w", step=4))
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert FaultPlan.from_json(plan.to_json()).digest == plan.digest


def test_no_seed_has_a_say_and_a_specimen_neither():
    plan = plan_of(cell(sample=2), cell(word=1))
    assert resolve(SITES, [cells(cell(sample=2), cell(word=1))], device=9) == plan
    assert not any(process.varies(plan.tables) for process in plan.at("act").processes)
    for seed in (0, 5):
        hits = faults_at(plan, "act", seed=seed, sample=2)
        assert [(hit.word, hit.bit, hit.effect) for hit in hits] == [(1, 0, "flip"), (0, 0, "flip")]
    assert len(faults_at(plan, "act", seed=0, sample=3)) == 1


def test_faults_may_be_left_out_but_not_scaled():
    fault = cells(cell())
    assert resolve(SITES, [fault], factors=[0]).sites == ()
    with pytest.raises(ModelError, match="without a probability to scale; expected 0 or 1"):
        resolve(SITES, [fault], factors=[0.5])


# exactly these, in every engine


def graph_of(plan, site, shape):
    """The site's fault nodes one behind the other, on float32."""
    names = ["x", *(f"t{i}" for i in range(1, len(plan.steps(site.name)))), "y"]
    nodes, constants = [], [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("s", 1.0), ("z", 0.0))]
    for i, step in enumerate(plan.steps(site.name)):
        node, own = fault_node(site, step, (names[i], "s", "z"), names[i + 1], f"faults{i}")
        nodes, constants = [*nodes, node], [*constants, *own]
    read = {name for node in nodes for name in node.input}
    drawn = [n for n in ("hwfault_seed", "hwfault_first_sample") if n in read]
    inputs = [helper.make_tensor_value_info("x", 1, shape), *(helper.make_tensor_value_info(n, 7, []) for n in drawn)]
    inner, (out,) = ([helper.make_tensor_value_info(n, 1, shape) for n in part] for part in (names[1:-1], ["y"]))
    graph = helper.make_graph(nodes, "g", inputs, [out], constants, value_info=inner)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def in_torch(plan, site, x, numbers, strike):
    """The values after the rows of each step, by an operator or kernel of maps."""
    one = torch.ones((), dtype=x.dtype)
    for step in plan.steps(site.name):
        rows = step.process.rows
        columns = (torch.from_numpy(column.copy()) for column in (rows.word, *masks_of(rows)))
        numbered = (site.bit_width, int(site.signed), 0, rows.threshold, rows.site)
        x = strike(x, MapOperands(torch.tensor(numbers), torch.tensor(3), *columns, one, 0 * one, *numbered))
    return x


def masks_of(rows):
    return rows.and_mask.view(np.int32), rows.xor_mask.view(np.int32)


def by_operator(x, o):
    given = (o.period, o.seed, o.word, torch.stack([o.and_mask, o.xor_mask]), *o[5:])
    return fault_map(x, *given, False, True)


def by_triton(x, o):
    pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")
    from hwfault.stream import cuda
    from tests.helpers.stream.triton_calls import DEVICE

    return cuda.strike(x.to(DEVICE), MapOperands(*(t.to(DEVICE) if hasattr(t, "to") else t for t in o))).cpu()


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_every_engine_strikes_exactly_these(data):
    site = data.draw(st.sampled_from(SITES))
    first = data.draw(st.sampled_from([0, 6, 2**32 - 3])) if site.batched else 0
    numbers = [first + i for i in range(3 if site.batched else 1)]
    given = data.draw(some_cells(site, [*numbers, numbers[0] + 5 if first < 9 else 1]))
    plan = plan_of(*given)
    fmt = CodeFormat(site.bit_width, site.signed)
    codes = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, fmt.mask + 1, (len(numbers), site.words))
    expected = np.array(by_hand(codes, given, numbers))
    # the codes themselves, then the values that stand for them
    struck = codes.astype(np.uint32)
    for step in plan.steps(site.name):
        struck = strike_codes(step, struck, 1, np.array(numbers), site.batched)
    np.testing.assert_array_equal(struck, expected)
    x, wanted = (torch.tensor(c - (c > fmt.high) * (fmt.mask + 1), dtype=torch.float32) for c in (codes, expected))
    for engine in (by_operator, by_triton):
        assert torch.equal(in_torch(plan, site, x, numbers, engine), wanted), engine.__name__
    graph = graph_of(plan, site, x.shape)
    (by_onnxruntime,) = run(session(graph), x.numpy(), seed=3, first_sample=first)
    np.testing.assert_array_equal(by_onnxruntime, wanted.numpy())
    np.testing.assert_array_equal(by_qonnx(graph, x, *(3, first)[: len(graph.graph.input) - 1]), wanted.numpy())


def struck_in(name, plan, sizes, training=False):
    """(site, number of the sample or step, codes before and after) of everything that batches of these sizes read."""
    model, seen, first = network(name).train(training), Seen(plan), 0
    with hf.inject(model, plan, seed=1, observe=seen), torch.no_grad():
        for step, size in enumerate(sizes):
            seen.clear()
            model(batch(16)[first : first + size])
            for site, before, after in seen:
                numbers = range(first, first + size) if plan.at(site).site.batched else [step if training else 0]
                yield from zip([site] * len(numbers), numbers, before, after, strict=True)
            first += size


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["biased", "turned"])  # samples in front, and along axis 1, in two runs
def test_a_network_strikes_exactly_these_at_any_batch_size(name, training):
    known, rng, given = known_sites(name), np.random.default_rng(4), []
    for site in known:
        if site.kind == "accumulator":
            continue
        places = rng.choice(site.words * site.bit_width, 20, replace=False)
        for i, place in enumerate(places.tolist()):
            when = {} if i < 5 else {"sample" if site.batched else "step": i % 8}
            kind = ["flip", "stuck_0", "stuck_1"][i % 3]
            given.append(cell(site.name, place // site.bit_width, place % site.bit_width, kind, **when))
    plan = resolve(known, [cells(*given)])
    found = {}
    for sizes in ([8], [1] * 8, [3, 5]):
        changed = 0
        for site, number, before, after in struck_in(name, plan, sizes, training):
            own = [one for one in given if one["site"] == site]
            assert after.tolist() == by_hand(before[None], own, [number])[0], (site, number)
            changed += int((before != after).sum())
            if (
                not training and plan.at(site).site == known[0]
            ):  # what comes first reads the same inputs at every batch size
                assert found.setdefault(number, after.tolist()) == after.tolist()
        assert changed > 60


def test_gradients_pass_straight_through_or_stop_at_the_cells():
    model = qnn.QuantIdentity(bit_width=5, return_quant_tensor=False).eval()
    (site,) = hf.sites(model, batch(2))

    def passed():
        x = batch(2).requires_grad_()
        return torch.autograd.grad(model(x).sum(), x)[0].flatten(1)

    clean = passed()
    first, second = (clean == 1).all(0).nonzero().flatten().tolist()[:2]  # which the quantizer does not clip
    plan = resolve([site], [cells(cell(site.name, first, 1), cell(site.name, second, 0, sample=1))])
    for gradient, stopped in (("zero", [[0, first], [1, first], [1, second]]), ("straight_through", [])):
        with hf.inject(model, plan, gradient=gradient):
            found = passed()
        assert (found != clean).nonzero().tolist() == stopped
        assert all(found[sample, word] == 0 for sample, word in stopped)


def test_a_graph_says_which_version_it_needs():
    model, x = build("biased"), batch(3)
    known = hf.sites(model, x)
    act, weight = (next(site.name for site in known if site.kind == kind) for kind in ("activation", "weight"))
    for when, spec in (({"sample": 2}, "fault-stream v1.1"), ({}, "fault-stream v1")):
        plan = resolve(known, [cells(*(cell(act, word, 2, **when) for word in range(20)), cell(weight, 3, 1))])
        graph = hf.export(model, x, plan=plan)
        assert {entry.key: entry.value for entry in graph.metadata_props}["hwfault.spec"] == spec
        outputs = [run(session(graph), x.numpy(), first_sample=first)[0] for first in (0, 3)]
        assert np.array_equal(*outputs) == (not when)


# what is refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "expected either `cells`, a list, or `file`"),
        ({"cells": [cell()], "file": "f.csv"}, "expected either `cells`, a list, or `file`"),
        ({"cells": []}, "an empty list of cells strikes nothing; expected at least one"),
        ({"cells": [cell()], "sites": "act"}, "each cell names its site; leave `sites` out"),
        ({"cells": [cell(kind="flop")]}, r"cells.0: kind.*'flip', 'stuck_0' or 'stuck_1'.*'flop'"),
        ({"cells": [cell(), cell(word=-1)]}, r"cells.1: word.*given: -1"),
        ({"cells": [cell(word=1.0)]}, r"cells.0: word.*given: 1\.0"),
        ({"cells": [cell(bit=True)]}, r"cells.0: bit.*given: True"),
        ({"cells": [cell(bit=32)]}, r"cells.0: bit.*given: 32"),
        ({"cells": [cell(sample=-1)]}, r"cells.0: sample.*given: -1"),
        ({"cells": [cell(sample=2**32)]}, r"cells.0: sample.*given: 4294967296"),
        ({"cells": [cell("")]}, r"cells.0: site"),
        ({"cells": [cell() | {"wrod": 1}]}, "unknown key 'wrod': did you mean 'word'"),
        ({"cells": [{"site": "act"}]}, r"cells.0: word: Field required"),
    ],
)
def test_lists_that_are_none(given, words):
    with pytest.raises(ModelError, match=f"(?s){words}"):
        FaultList.parse({"faults": [{"model": "cells", **given}]}, "f.yaml")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([cell("atc")], "no site matches the selector 'atc': did you mean 'act'"),
        ([cell(), cell("atc")], "no site matches the selector 'atc'"),
        ([cell("*")], "no site matches"),
        ([cell(), cell(word=21)], "fault 0 at site 'act': cell 1: word 21, expected 0 to 20: .* 21 words of 5 bits"),
        ([cell("w", bit=4)], "fault 0 at site 'w': cell 0: bit 4, expected 0 to 3"),
        ([cell("w", sample=0)], "cell 0: sample 0 of a weight, which is the same for all samples; give .* `step`"),
        ([cell(step=0)], "cell 0: step 0 of an activation, whose faults are told by their sample; give `sample`"),
        ([cell(sample=1, step=1)], "cell 0: step 1 of an activation"),
        ([cell(), cell(word=1), cell()], r"cell 2: \(word 0, bit 0\) is named before, at 0; expected a cell once"),
        ([cell(), cell(kind="stuck_1")], "cell 1: .* is named before, at 0"),
        ([cell(sample=3), cell(sample=3)], "cell 1: .* is named before, at 0"),
        ([cell(sample=3), cell(sample=4), cell()], r"cell \d: .* is named before"),
        ([cell("w"), cell("also.w")], "fault 0 at site 'w': cell 1: .* is named before, at 0"),
    ],
)
def test_cells_that_no_site_has(given, words):
    with pytest.raises(ModelError, match=words):
        plan_of(*given)


def test_a_cell_may_be_named_for_several_samples():
    plan = plan_of(cell(sample=3), cell(sample=4), cell(bit=1))
    assert [len(faults_at(plan, "act", seed=0, sample=n)) for n in (2, 3, 4, 5)] == [1, 2, 2, 1]


def test_sites_whose_size_is_not_known():
    with pytest.raises(PlanError, match=r"shape of the site 'act' is not known.*with an example batch"):
        plan_of(cell(), sites=[ACT.model_copy(update={"shape": None})])


def test_names_are_no_globs():
    odd = ACT.model_copy(update={"name": "act[0]*"})
    assert plan_of(cell("act[0]*", 2), sites=[ACT, odd, WEIGHT]).names == ("act[0]*",)


def test_samples_of_2_to_the_31_words():
    wide = ACT.model_copy(update={"shape": (2**31,)})
    assert plan_of(cell(word=2**31 - 1), sites=[wide]).names == ("act",)
    with pytest.raises(ModelError, match="samples of 2147483648 words, expected fewer"):
        plan_of(cell(sample=1), sites=[wide])


# end to end


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a network's run and its graph, and a table of cells for them."""
    folder = tmp_path_factory.mktemp("cells")
    good("train", "--epochs", 1, "--out", folder / "run")
    good("export", folder / "run", "--out", folder / "clean.onnx")
    known = graph_sites(load_model(folder / "clean.onnx"))
    act, weight = (next(site.name for site in known if site.kind == kind) for kind in ("activation", "weight"))
    lines = [f"{act},{word},3,flip,{sample}" for sample in range(0, 40, 3) for word in range(50)]
    lines += [f"{act},60,0,stuck_1,", f"{weight},4,2,stuck_0,", f"{weight},5,3,flip,"]
    (folder / "cells.csv").write_text("site,word,bit,kind,sample\n" + "\n".join(lines) + "\n")
    return SimpleNamespace(folder=folder, act=act, weight=weight)


def test_the_commands(trained):
    faults = ("--faults", f"cells:{trained.folder / 'cells.csv'}")
    clean, faulted = trained.folder / "clean.onnx", trained.folder / "faulted.onnx"
    for sample, count in ((3, 51), (4, 1)):
        listed = good("faults", clean, *faults, "--site", trained.act, "--sample", sample, "--json").json
        assert len(listed["faults"] if isinstance(listed, dict) else listed) == count
    good("insert", clean, *faults, "--out", faulted)
    replayed = good("replay", faulted, trained.folder / "run", "--seeds", "0-1")
    assert re.search(r"[1-9][0-9,]* of them faulty", replayed.stdout)  # and the exit code says that all agree
    np.save(trained.folder / "x.npy", np.random.default_rng(0).random((2, 1, 8, 8), np.float32))
    outputs = {}
    for first in (0, 1, 3):
        out = trained.folder / f"y{first}.npy"
        good("run", faulted, "--input", trained.folder / "x.npy", "--first-sample", first, "--output", out)
        outputs[first] = np.load(out)
    assert np.array_equal(outputs[0], outputs[3])  # the cells of samples 0 and 3 are the same
    assert not np.array_equal(outputs[0], outputs[1])


def test_a_command_says_what_is_wrong(trained):
    path = trained.folder / "wrong.csv"
    path.write_text(f"site,word,bit,kind\n{trained.act},0,9,flip\n")
    done = hwfault(
        "insert", trained.folder / "clean.onnx", "--faults", f"cells:{path}", "--out", trained.folder / "no.onnx"
    )
    assert (done.code, done.stdout) == (2, "")
    assert "wrong.csv: line 2: bit 9, expected 0 to" in done.stderr
    assert not (trained.folder / "no.onnx").exists()
