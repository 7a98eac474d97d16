"""Samples of a graph of several inputs: an .npz file with an array for each, and what is refused."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwfault.errors import FileError, GraphError, HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.run.graph_input import GraphInputs, InputArrays, fit_names
from hwfault.graph.run.samples import read_samples
from hwfault.graph.run.session import run, session
from tests.helpers.graph import several
from tests.helpers.graph.classifier import classifier
from tests.helpers.graph.running import copied
from tests.helpers.graph.several import arrays


def wanted():
    return GraphInputs.of(several.graph())


def saved(folder, **given):
    np.savez(folder / "x.npz", **given)
    return folder / "x.npz"


def test_arrays_go_by_the_names_of_the_inputs(tmp_path):
    path = saved(tmp_path, y=np.arange(4), steps=arrays(4)["steps"], other=np.zeros(9), **without("steps"))
    found = read_samples(path, wanted())
    assert list(found.inputs.arrays) == ["ids", "mask", "steps"]
    for name, values in arrays(4).items():
        assert found.inputs.arrays[name].dtype == values.dtype
        assert np.array_equal(found.inputs.arrays[name], values)
    assert found.labels.tolist() == [0, 1, 2, 3]
    some = read_samples(path, wanted(), 3)
    assert (len(some.inputs), some.labels.tolist()) == (3, [0, 1, 2])


def without(name):
    return {key: values for key, values in arrays(4).items() if key != name}


def test_smaller_integers_become_those_of_the_input(tmp_path):
    path = saved(tmp_path, **arrays(4) | {"ids": arrays(4)["ids"].astype(np.uint8)})
    assert read_samples(path, wanted()).inputs.arrays["ids"].dtype == np.int64


def called(name):
    """The inputs of a graph of one, which it calls so."""
    graph = copied(classifier())
    graph.graph.input[0].name = graph.graph.node[0].input[0] = name
    return GraphInputs.of(graph)


def test_a_single_input_is_x_or_goes_by_its_name(tmp_path):
    x = np.zeros((2, 2, 6, 6), np.float32)
    for given in ({"x": x}, {"pixels": x}, {"x": x, "pixels": x + 1}):
        found = read_samples(saved(tmp_path, **given), called("pixels"))
        assert found.inputs.arrays.keys() == {"pixels"}
        assert (found.inputs.only == x).all()
    found = read_samples(saved(tmp_path, x=x, y=np.arange(2)), called("y"))
    assert (found.inputs.arrays.keys(), found.labels.tolist()) == ({"y"}, [0, 1])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (without("mask"), FileError, r"holds no array 'mask', expected one .* by its name \(ids, mask, steps\)$"),
        (
            without("mask") | {"masks": 1},
            FileError,
            r"holds no array 'mask'.*for which input is 'masks'\? did you mean",
        ),
        ({"x": 1, "y": 2}, FileError, r"holds no array 'ids'.*for which input is 'x'\? known are: 'ids', 'mask'"),
        (arrays(4) | {"mask": arrays(3)["mask"]}, FileError, "ids holds 4 samples, but mask 3; expected a row of each"),
        (arrays(4) | {"ids": np.int64(3)}, FileError, "ids holds no samples"),
        (arrays(4) | {"steps": arrays(4)["steps"][:0]}, FileError, "steps holds no samples"),
        (
            arrays(4) | {"ids": arrays(4)["ids"] / 2},
            GraphError,
            "ids holds float64, but the input 'ids' takes int64; convert it before",
        ),
        (arrays(4) | {"ids": arrays(4)["ids"][:, 1:]}, GraphError, r"ids has shape \(4, 5\), but .* takes \(any, 6\)"),
        (arrays(4) | {"y": np.arange(3)}, FileError, r"y is int64 of shape \(3,\), expected integers \(4,\)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, given, error, words):
    with pytest.raises(error, match=words):
        read_samples(saved(tmp_path, **given), wanted())


def test_images_are_for_one_input(tmp_path):
    with pytest.raises(GraphError, match=r"a folder of images is for a graph of one input.*\['ids', 'mask', 'steps'\]"):
        read_samples(tmp_path, wanted())


def with_input(name, shape, kind=TensorProto.FLOAT):
    graph = copied(several.graph())
    graph.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    return graph


def test_inputs_that_hold_no_samples_are_refused():
    for shape in ([], [4, 3]):
        with pytest.raises(GraphError, match=r"inputs 'ids' \(any, 6\) and 'table' .* make the others initializers"):
            GraphInputs.of(with_input("table", shape))


def test_an_input_called_as_labels_are(tmp_path):
    words = "an input 'y', which is what labels are called"
    with pytest.raises(GraphError, match=words):
        read_samples(saved(tmp_path, **arrays(4)), GraphInputs.of(with_input("y", ["batch", 2])))
    with pytest.raises(GraphError, match=words):
        read_samples(saved(tmp_path, y=np.zeros((2, 2, 6, 6), np.float32)), called("y"))


def test_graphs_without_inputs_and_with_faults():
    graph = copied(several.graph())
    del graph.graph.input[:]
    with pytest.raises(GraphError, match="the graph has no inputs"):
        GraphInputs.of(graph)
    with pytest.raises(GraphError, match="carries faults already"):
        GraphInputs.of(insert_faults(several.graph(), several.plan()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            np.zeros((2, 6)),
            r"given were \['one array without a name'\] for the graph's inputs \['ids', 'mask', 'steps'\]",
        ),
        (without("ids"), r"given were \['mask', 'steps'\]"),
        (arrays(4) | {"mask": arrays(2)["mask"]}, "ids has 4, mask has 2, steps has 4"),
    ],
)
def test_input_arrays_of_other_names_or_lengths(given, words):
    with pytest.raises(HwfaultError, match=words):
        InputArrays.of(given, wanted().names)


def test_names_are_fitted_by_name_and_then_in_order():
    given = {"a": 1, "b": 2, "c": 3}
    assert fit_names(given, ["c", "a"]) == {"c": 3, "a": 1}
    assert fit_names(given, ["p", "c", "q"]) == {"c": 3, "p": 1, "q": 2}
    with pytest.raises(GraphError, match=r"the graph has the inputs \['p'\], but the samples are of \['a', 'b', 'c'\]"):
        fit_names(given, ["p"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (without("ids"), r"the graph's inputs are \['ids', 'mask', 'steps'\], given were \['mask', 'steps'\]"),
        (np.zeros((4, 6)), "given were one array without a name"),
        (arrays(4) | {"ids": arrays(4)["mask"]}, "onnxruntime cannot run the graph on this batch"),
        (arrays(4) | {"mask": arrays(3)["mask"]}, "onnxruntime cannot run the graph on this batch"),
    ],
)
def test_sessions_tell_what_is_wrong(given, words):
    with pytest.raises(GraphError, match=words):
        run(session(several.graph()), given)
