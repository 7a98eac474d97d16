"""The samples of a graph from a folder of images: order, labels, pixels, and what is refused."""

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from hwfault.errors import FileError, GraphError
from hwfault.graph.run import image_samples
from hwfault.graph.run.graph_input import GraphInputs
from hwfault.graph.run.samples import read_samples
from tests.helpers.graph.classifier import classifier


def wanted(*shape, kind=TensorProto.FLOAT):
    """The input of a graph that takes samples of a shape."""
    graph = classifier()
    tensor = graph.graph.input[0].type.tensor_type
    tensor.elem_type = kind
    del tensor.shape.dim[1:]
    for extent in shape:
        dim = tensor.shape.dim.add()
        if extent is not None:
            dim.dim_value = extent
    return GraphInputs.of(graph)


def picture(folder, name, colour, mode="RGB", size=(4, 2)):
    """A file of 4 x 2 pixels, the first of another colour than all others."""
    (folder / name).parent.mkdir(exist_ok=True)
    image = Image.new(mode, size, colour)
    image.putpixel((0, 0), 7 if mode == "L" else (1, 2, 3))
    image.save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """Two images of one class and one of another."""
    picture(tmp_path, "dog/a.png", (10, 20, 30))
    picture(tmp_path, "dog/b.png", (40, 50, 60))
    picture(tmp_path, "cat/z.png", (70, 80, 255))
    (tmp_path / ".hidden").touch()
    return tmp_path


def test_one_image_of_every_class_and_then_the_next(folder):
    found = read_samples(folder, wanted(3, 2, 4))
    assert (found.inputs.shape, found.inputs.dtype) == ((3, 3, 2, 4), np.float32)
    assert found.inputs[:, :, 1, 1].tolist() == [[70, 80, 255], [10, 20, 30], [40, 50, 60]]
    assert found.inputs[:, :, 0, 0].tolist() == [[1, 2, 3]] * 3
    assert found.labels.tolist() == [0, 1, 1]
    assert found.classes == ("cat", "dog")
    assert read_samples(folder, wanted(3, 2, 4), 2).labels.tolist() == [0, 1]


def test_colours_last_and_bytes(folder):
    found = read_samples(folder, wanted(2, 4, 3, kind=TensorProto.UINT8))
    assert found.inputs.dtype == np.uint8
    assert found.inputs[1, 0, :2].tolist() == [[1, 2, 3], [10, 20, 30]]


def test_folders_that_are_called_by_numbers_are_the_labels(tmp_path):
    for name in ("0", "2", "10"):
        picture(tmp_path, f"{name}/a.png", 200, "L")
    found = read_samples(tmp_path, wanted(1, 2, 4))
    assert sorted(found.labels.tolist()) == [0, 2, 10]
    assert found.classes is None
    assert found.inputs[0].tolist() == [[[7, 200, 200, 200], [200] * 4]]


def test_images_without_classes_have_no_labels(tmp_path):
    picture(tmp_path, "b.png", 9, "L")
    picture(tmp_path, "a.png", 8, "L")
    found = read_samples(tmp_path, wanted(1, 2, 4))
    assert found.labels is None
    assert found.inputs[:, 0, 1, 1].tolist() == [8, 9]


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((3, 2, None), TensorProto.FLOAT, r"takes float32 of shape \(3, 2, any\) for a sample, expected pixels"),
        ((8,), TensorProto.FLOAT, r"takes float32 of shape \(8\)"),
        ((3, 2, 3), TensorProto.FLOAT, r"takes float32 of shape \(3, 2, 3\)"),
        ((2, 4, 5), TensorProto.FLOAT, r"takes float32 of shape \(2, 4, 5\)"),
        ((3, 2, 4), TensorProto.INT8, "takes int8"),
    ],
)
def test_inputs_that_are_no_images_are_refused(folder, shape, kind, words):
    with pytest.raises(GraphError, match=words):
        read_samples(folder, wanted(*shape, kind=kind))


def test_images_that_do_not_fit_are_refused(folder, monkeypatch):
    with pytest.raises(FileError, match=r"z\.png: has 4 x 2 pixels, but the graph takes 4 x 4; resize"):
        read_samples(folder, wanted(3, 4, 4))
    with pytest.raises(FileError, match=r"z\.png: is coloured, but the graph takes images of one colour"):
        read_samples(folder, wanted(1, 2, 4))
    monkeypatch.setattr(image_samples, "_LARGEST", 287)
    with pytest.raises(FileError, match="its images need 288 bytes of memory, expected at most 287"):
        read_samples(folder, wanted(3, 2, 4))


def test_what_is_no_folder_of_images_is_refused(folder):
    (folder / "cat" / "notes.txt").touch()
    with pytest.raises(FileError, match=r"notes\.txt: is not an image by its name"):
        read_samples(folder, wanted(3, 2, 4))
    (folder / "cat" / "notes.txt").rename(folder / "notes.txt")
    with pytest.raises(FileError, match=r"notes\.txt: is not a folder, expected one folder for each class"):
        read_samples(folder, wanted(3, 2, 4))
    (folder / "notes.txt").unlink()
    (folder / "dog" / "c.png").write_bytes(b"none")
    with pytest.raises(FileError, match=r"c\.png: is not an image that can be decoded"):
        read_samples(folder, wanted(3, 2, 4))
