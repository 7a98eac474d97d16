"""What a session is given: inputs, seeds, choices of outputs, batches of any size."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.run.session import run, session
from tests.graph.edit.test_insert import X, tiny
from tests.helpers.graph.networks import batch, network
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_onnxruntime, by_pytorch, by_pytorch_faulted, clean_session, faulted, tidied
from tests.helpers.graph.running import faulted_session as made


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"x": batch("mlp").numpy()}, r"the graph's inputs are \['input'\], given were \['x'\]"),
        ({}, r"inputs are \['input'\], given were"),
        ({"input": batch("mlp").numpy(), "hwfault_seed": np.int64(1)}, r"given were \['hwfault_seed', 'input'\]"),
        (batch("mlp").double().numpy(), "cannot run the graph on this batch.*double"),
        (batch("mlp").numpy()[:, :1], r"(?s)cannot run the graph on this batch.*Got: 1 Expected: 2"),
        (batch("mlp").numpy()[0], "(?s)cannot run the graph on this batch.*rank"),
        (np.array(["a"]), "cannot run the graph on this batch"),
        (np.array([None]), "cannot run the graph on this batch"),
        ([[1.0], [1.0, 2.0]], "batch"),
    ],
)
def test_inputs_that_the_graph_does_not_take(inputs, text):
    with pytest.raises(GraphError, match=text):
        run(made("mlp"), inputs)


def test_outputs_that_the_graph_does_not_have():
    with pytest.raises(GraphError, match=r"cannot run the graph.*nowhere"):
        run(made("mlp"), batch("mlp").numpy(), outputs=["nowhere"])


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7", None, True])
def test_seeds_that_are_none(seed):
    for held in (made("mlp"), clean_session("mlp")):
        with pytest.raises(HwfaultError, match=r"the seed is .*, expected an integer from 0 to 2\^64 - 1"):
            run(held, batch("mlp").numpy(), seed=seed)


def test_a_mapping_of_inputs_and_a_choice_of_outputs():
    x = batch("mlp")
    (one,) = run(made("mlp"), {"input": x.numpy()}, seed=1, outputs=["output"])
    assert_same(one, by_pytorch_faulted("mlp", x, 1))
    assert run(made("mlp"), {"input": x.numpy()}, seed=1, outputs=[]) != one.tolist()


def test_a_graph_with_two_inputs_needs_their_names():
    graph = tiny(reader=helper.make_node("Add", ["q", "other"], ["y"]))
    graph.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["batch", 3]))
    held = session(graph)
    with pytest.raises(GraphError, match=r"inputs are \['x', 'other'\], given were one array without a name"):
        run(held, X.numpy())
    (y,) = run(held, {"x": X.numpy(), "other": X.numpy()})
    np.testing.assert_array_equal(y, by_onnxruntime(tiny(), X) + X.numpy())


def test_a_clean_graph_ignores_the_numbers():
    x = batch("digits_cnn")
    expected = by_pytorch(network("digits_cnn"), x)
    assert_same(run(clean_session("digits_cnn"), x.numpy(), seed=9, first_sample=5)[0], expected)


def test_a_batch_of_size_0_passes_through():
    for name in ("mlp", "formats"):
        (out,) = run(made(name), batch(name).numpy()[:0], seed=3)
        assert out.shape == (0, 5)


def test_inputs_that_a_cleanup_renamed():
    tidy = tidied(faulted("mlp"), None)
    assert [info.name for info in tidy.graph.input] == ["global_in", "global_in_1", "global_in_2"]
    held = session(tidy)
    assert [entry.name for entry in held.get_inputs()] == ["global_in", "hwfault_seed", "hwfault_first_sample"]
    x = batch("mlp")
    assert_same(run(held, x.numpy(), seed=8, first_sample=3)[0], by_pytorch_faulted("mlp", x, 8, 3))
    assert_same(run(held, {"global_in": x.numpy()}, seed=8, first_sample=3)[0], by_pytorch_faulted("mlp", x, 8, 3))
