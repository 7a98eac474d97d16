import io
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from hwfault.errors import FileError, HwfaultError
from hwfault.train.data import Dataset, digits, load
from hwfault.train.data import npz as npz_room


def arrays(**changes):
    generator = np.random.default_rng(0)
    given = {
        "x_train": generator.integers(0, 256, (6, 1, 2, 2), np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "x_test": generator.integers(0, 256, (3, 1, 2, 2), np.uint8),
        "y_test": np.array([0, 1, 2], np.int32),
    }
    return {key: value for key, value in (given | changes).items() if value is not None}


def npz(folder, save=np.savez, **changes):
    path = folder / "data.npz"
    save(path, **arrays(**changes))
    return str(path)


def npy(header, content=b"", magic=b"\x93NUMPY\x01\x00"):
    header = header.encode().ljust(117) + b"\n"
    return magic + len(header).to_bytes(2, "little") + header + content


def with_member(folder, name, content):
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{key}.npy", content if key == name else buffer.getvalue())
    return str(path)


def test_digits_are_on_their_grid_and_always_split_alike():
    data = digits()
    assert data.train_x.shape == (1437, 1, 8, 8)
    assert data.test_x.shape == (360, 1, 8, 8)
    assert data.classes == 10
    assert torch.equal((data.train_x * 16).round() / 16, data.train_x)
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)
    assert data.test_y[:8].tolist() == digits().test_y[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    both = torch.cat([data.train_x, data.test_x]).flatten(1)
    assert len(both.unique(dim=0)) == 1797


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    data = load(npz(tmp_path, save))
    assert data.classes == 3
    assert data.train_x.dtype == torch.float32
    assert np.array_equal(data.test_x.numpy(), arrays()["x_test"])
    assert data.test_y.tolist() == [0, 1, 2]


def test_npz_in_other_byte_and_axis_order(tmp_path):
    x = np.arange(24, dtype=">f8").reshape(6, 4)
    data = load(npz(tmp_path, x_train=np.asfortranarray(x), x_test=x[:3]))
    assert np.array_equal(data.train_x.numpy(), x)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"y_test": None}, "no array 'y_test'"),
        ({"y_train": np.zeros(6)}, "y_train is float64, expected integers"),
        ({"x_train": np.zeros((6, 1, 2, 2), complex)}, "x_train is complex128, expected numbers"),
        ({"x_train": np.array([None] * 6)}, "x_train is object, expected numbers"),
        ({"x_train": np.zeros((5, 1, 2, 2))}, "train_x has shape (5, 1, 2, 2) and train_y (6,)"),
        ({"x_test": np.zeros((3, 4))}, "test_x (3, 4), expected the same after the first axis"),
        ({"x_test": np.full((3, 1, 2, 2), np.nan)}, "test_x holds values that are NaN"),
        ({"x_test": np.full((3, 1, 2, 2), 1e300)}, "too large for float32"),
        ({"y_train": np.array([0, 1, -2, 0, 1, 2])}, "train_y[2] is -2, expected labels from 0"),
        ({"y_train": np.array([0, 1, 2**63, 0, 1, 2], np.uint64)}, "does not fit 64 bits"),
        ({"x_train": np.zeros((0, 1, 2, 2)), "y_train": np.zeros(0, int)}, "not empty"),
        ({"y_train": np.int64(0)}, "train_y ()"),
    ],
)
def test_arrays_that_are_no_data_set(tmp_path, changes, text):
    with pytest.raises(FileError) as error:
        load(npz(tmp_path, **changes))
    assert str(error.value).startswith(f"{tmp_path}/data.npz: ")
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not a readable .npy or .npz file"),
        (b"not an array", "not a readable .npy or .npz file"),
        (npy("import os"), "not a readable .npy or .npz file"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (6, 1, 2, 2)}", b"short"), "but 5 bytes of content"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-6, -4)}", bytes(24)), "shape (-6, -4)"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10**15,)}"), "not a readable .npy or .npz file"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}"), "but 0 bytes of content"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (6,)}"), "x_train is object"),
        (npy("{}", magic=b"\x93NUMPY\x03\x00"), "version (3, 0), expected 1.0 or 2.0"),
    ],
)
def test_hostile_arrays(tmp_path, content, text):
    with pytest.raises(FileError) as error:
        load(with_member(tmp_path, "x_train", content))
    assert text in str(error.value)


def test_memory_is_bounded_before_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_room, "_LARGEST", 100)
    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "read_array", partial(pytest.fail, "memory was taken"))
        with pytest.raises(FileError, match=r"need \d+ bytes of memory, expected at most 100"):
            load(npz(tmp_path))
    bytes_of_pixels = {f"x_{part}": np.zeros((500, 2), np.uint8) for part in ("train", "test")}
    monkeypatch.setattr(npz_room, "_LARGEST", 6000)
    with pytest.raises(FileError, match=r"need 8[0-9]{3} bytes of memory as a data set, expected at most 6000"):
        load(npz(tmp_path, **bytes_of_pixels))


def test_no_zip_at_all(tmp_path):
    for content in (b"", b"PK\x03\x04", b"\x80\x04pickle", b"x" * 100):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(FileError, match=r"not a readable \.npy or \.npz file"):
            load(str(tmp_path / "data.npz"))
    with pytest.raises(FileError, match="no such file"):
        load(str(tmp_path / "other.npz"))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileError, match=r"not a readable \.npy or \.npz file"):
        load(str(tmp_path / "folder.npz"))


def test_a_data_set_checks_itself():
    x, y = torch.zeros(2, 3), torch.tensor([0, 1])
    assert Dataset(x, y, x, y).classes == 2
    assert Dataset(x, y, x, y, classes=5).classes == 5
    with pytest.raises(FileError, match="label 1, expected 0 to 0 for 1 classes"):
        Dataset(x, y, x, y, classes=1)
    with pytest.raises(FileError, match=r"test_x is torch\.float64"):
        Dataset(x, y, x.double(), y)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_integers_stay_what_they_are(kind):
    x, y = torch.tensor([[3, 250], [-1, 7]], dtype=kind), torch.tensor([0, 1])
    found = Dataset(x, y, x, y)
    assert found.example.dtype == kind
    assert torch.equal(found.test.inputs(torch.tensor([1, 0])), x[[1, 0]])
    (read,) = found.train.reader(None, seed=0, workers=0, device=torch.device("cpu"))(0, [torch.tensor([0, 1])])
    assert torch.equal(read, x)
    with pytest.raises(FileError, match=rf"inputs are {kind}, which nothing normalises"):
        Dataset(x, y, x, y, mean=(0.0, 0.0), std=(1.0, 1.0))


def test_users_data():
    assert load("tests.helpers.train.small:data").classes == 3
    with pytest.raises(HwfaultError, match=r"returned dict, expected hwfault\.train\.Dataset"):
        load("tests.helpers.train.small:not_a_network")
    with pytest.raises(HwfaultError, match="data 'digit' is unknown: did you mean 'digits'"):
        load("digit")
