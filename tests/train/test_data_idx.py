import gzip

import numpy as np
import pytest
import torch

from hwfault.errors import FileError
from hwfault.train.data import idx, load
from tests.helpers.train import files

TEN = np.arange(10)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("spec", "place"),
    [("mnist", ""), ("mnist", "MNIST/raw"), ("fashion_mnist", ""), ("fashion_mnist", "FashionMNIST/raw")],
)
def test_what_the_files_say(tmp_path, spec, place, zipped):
    written = files.write_mnist(tmp_path / place, zipped=zipped)
    data = load(spec, folder=tmp_path)
    stored = (data.train_x, data.train_y, data.test_x, data.test_y)
    assert all(np.array_equal(have.numpy(), want) for have, want in zip(stored, written, strict=True))
    assert data.train_x.shape == (30, 1, 28, 28)
    assert (data.classes, data.train_x.dtype) == (10, torch.uint8)
    want = (written[2][:1] / np.float32(255) - np.float32(data.mean[0])) / np.float32(data.std[0])
    assert np.array_equal(data.example.numpy(), want)


def test_the_two_lie_side_by_side(tmp_path):
    one = files.write_mnist(tmp_path / "MNIST/raw", seed=1)
    other = files.write_mnist(tmp_path / "FashionMNIST/raw", seed=2)
    assert np.array_equal(load("mnist", folder=tmp_path).train_x.numpy(), one[0])
    assert np.array_equal(load("fashion_mnist", folder=tmp_path).train_x.numpy(), other[0])


def test_missing_files_are_listed(tmp_path):
    with pytest.raises(FileError) as error:
        load("mnist", folder=tmp_path)
    for name in (*files.MNIST_FILES, "MNIST/raw below it", "Nothing is downloaded", ".gz or not"):
        assert name in str(error.value)
    files.write_mnist(tmp_path, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileError, match="not here as a whole, t10k-labels-idx1-ubyte is missing"):
        load("mnist", folder=tmp_path)


def header(*sizes):
    return bytes((0, 0, 8, len(sizes))) + b"".join(size.to_bytes(4, "big") for size in sizes)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "begins with nothing"),
        (b"\x00\x00\x08", "begins with 00 00 08, expected the header of an idx file"),
        (header(20)[:6], "begins with 00 00 08 01"),
        (b"\x00\x00\x0d\x01" + bytes(80), "begins with 00 00 0d 01"),
        (files.idx(np.zeros((20, 1))), "begins with 00 00 08 02"),
        (files.idx(np.zeros(20))[:-1], "20 bytes"),
        (files.idx(np.zeros(20)) + b"\0", "which is 20 bytes, but holds more"),
        (files.idx(np.zeros(19)), "expected (n, 28, 28) images and (n,) labels"),
        (files.idx(np.array([0] * 19 + [10])), "sample 19 has the label 10, expected 0 to 9"),
        (header(0xFFFFFFFF), "too large for a file of"),
    ],
)
def test_damaged_labels(tmp_path, content, text, zipped):
    files.write_mnist(tmp_path, zipped=zipped)
    name = f"t10k-labels-idx1-ubyte{'.gz' if zipped else ''}"
    files.write(tmp_path, name, gzip.compress(content) if zipped else content)
    if text == "20 bytes" and not zipped:
        text = "(20,) by its header"
    with pytest.raises(FileError) as error:
        load("mnist", folder=tmp_path)
    assert name in str(error.value)
    assert text in str(error.value)


@pytest.mark.parametrize("sizes", [(0xFFFFFFFF,) * 3, (1 << 31, 28, 28), (0, 28, 28), (20, 28, 27), (20, 0, 28)])
def test_images_of_impossible_sizes(tmp_path, sizes):
    files.write_mnist(tmp_path)
    files.write(tmp_path, "t10k-images-idx3-ubyte", header(*sizes) + bytes(20 * 784))
    with pytest.raises(FileError, match="t10k-images-idx3-ubyte"):
        load("mnist", folder=tmp_path)


def test_a_gzip_bomb_is_read_no_further_than_expected(tmp_path):
    """A header that asks for little, before 64 MiB of zeros that take 64 KiB on disk."""
    files.write_mnist(tmp_path, zipped=True)
    files.write(tmp_path, "train-labels-idx1-ubyte.gz", gzip.compress(header(30) + bytes(64 << 20), 1))
    with pytest.raises(FileError, match="which is 30 bytes, but holds more"):
        load("mnist", folder=tmp_path)


def test_a_large_header_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    path = files.write(tmp_path, "images", header(1 << 20, 28, 28) + bytes(100))
    with pytest.raises(FileError, match="too large for a file of 116 bytes"):
        idx.read_idx(path, 3)
    monkeypatch.setattr(idx, "_LARGEST", 10)
    with pytest.raises(FileError, match="too large"):
        idx.read_idx(files.write(tmp_path, "ten", files.idx(np.zeros(11))), 1)
    assert len(idx.read_idx(files.write(tmp_path, "ten", files.idx(TEN)), 1)) == 10
