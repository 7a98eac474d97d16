"""Faults put into graphs whose tensors lie in other files, and out again: the graph's file as it was, in every byte."""

import json

import onnx
import pytest

from hwfault.errors import GraphError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import UNDO, find_stored, strip_faults
from hwfault.graph.read.qonnxgraph import metadata, set_metadata
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import load_model, load_stored
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.running import clean, copied


def put_in(graph, path=None):
    """The graph with faults; it was in that file."""
    plan = resolve(sites(graph), [BitFlips(probability=0.1)])
    return insert_faults(graph, plan, stored=None if path is None else load_stored(path))


def on_disk(graph, path, threshold=0):
    """The graph in a file, its tensors in another beside it."""
    options = {"location": f"{path.stem}.data", "size_threshold": threshold, "convert_attribute": True}
    onnx.save_model(copied(graph), path, save_as_external_data=True, **options)
    return path


def test_the_file_of_the_graph_before_comes_back(tmp_path):
    path = on_disk(clean("digits_cnn"), tmp_path / "before.onnx", 64)
    before = load_model(path)
    plain = put_in(before)
    faulty = put_in(before, path)
    found = strip_faults(faulty)
    assert found == strip_faults(plain) == before
    assert find_stored(plain, found, path) is None
    stored = find_stored(faulty, found, tmp_path / "again.onnx")
    assert stored.SerializeToString() == path.read_bytes()


def test_files_that_hold_something_else_are_told(tmp_path):
    path = on_disk(clean("digits_cnn"), tmp_path / "before.onnx")
    before = load_model(path)
    faulty = put_in(before, path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(GraphError, match=r"in the file 'before.data', and there is no such file"):
        find_stored(faulty, before, tmp_path / "inner" / "again.onnx")
    data = (tmp_path / "before.data").read_bytes()
    (tmp_path / "before.data").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(GraphError, match="that its tensors lay in hold something else now"):
        find_stored(faulty, before, path)
    (tmp_path / "before.data").write_bytes(data)
    assert find_stored(faulty, before, path).SerializeToString() == path.read_bytes()


@pytest.mark.parametrize(
    "edited", [{"sha256": "other"}, {"tensors": {"999": ""}}, {"tensors": {"0": "?"}}, {"tensors": 3}]
)
def test_a_record_of_files_that_was_edited_is_refused(edited, tmp_path):
    path = on_disk(clean("biased"), tmp_path / "before.onnx")
    before = load_model(path)
    faulty = put_in(before, path)
    record = json.loads(metadata(faulty)[UNDO])
    set_metadata(faulty, {UNDO: json.dumps(record | {"stored": record["stored"] | edited})})
    with pytest.raises(GraphError, match=r"cannot be read|hold something else"):
        find_stored(faulty, before, path)


def test_files_outside_of_the_folder_are_not_looked_into(tmp_path):
    (tmp_path / "inner").mkdir()
    path = on_disk(clean("biased"), tmp_path / "inner" / "before.onnx")
    before, stored = load_model(path), load_stored(path)
    for tensor in stored.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../before.data" if entry.key == "location" else entry.value
    (path.parent / "before.data").rename(tmp_path / "before.data")
    faulty = insert_faults(before, resolve(sites(before), [BitFlips(probability=0.1)]), stored=stored)
    with pytest.raises(GraphError, match="expected one in the graph's own folder or below it"):
        find_stored(faulty, before, path)
