import gzip
import io
import tarfile

import numpy as np
import pytest
import torch

from hwfault.errors import FileError, HwfaultError
from hwfault.train.data import cifar, cifar10, cifar100, load
from tests.helpers.train import files

RECORD = 3073


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin"])
def test_cifar10_is_what_its_files_say(tmp_path, place):
    written = files.write_cifar10(tmp_path / place, n_train=23, n_test=10)
    data = load("cifar10", folder=tmp_path)
    stored = (data.train_x, data.train_y, data.test_x, data.test_y)
    assert all(np.array_equal(have.numpy(), want) for have, want in zip(stored, written, strict=True))
    assert (data.train_x.dtype, data.classes) == (torch.uint8, 10)
    want = (written[2][3] / np.float32(255) - np.float32(data.mean)[:, None, None]) / np.float32(data.std)[
        :, None, None
    ]
    assert np.array_equal(data.test.inputs(torch.tensor([3]))[0].numpy(), want.astype(np.float32))


def test_one_record_byte_by_byte(tmp_path):
    """A red ramp: label 7, then red row by row, then green and blue of one value each."""
    record = bytes([7]) + bytes(i % 256 for i in range(1024)) + bytes([1] * 1024) + bytes([2] * 1024)
    for name in files.CIFAR10_FILES:
        files.write(tmp_path, name, record)
    data = cifar10(tmp_path)
    assert data.test_y.tolist() == [7]
    assert data.test_x[0, :, 1, 5].tolist() == [37, 1, 2]
    assert data.train_x.shape == (5, 3, 32, 32)


@pytest.mark.parametrize("place", ["", "cifar-100-binary"])
def test_cifar100_takes_the_fine_labels(tmp_path, place):
    written = files.write_cifar100(tmp_path / place)
    data = load("cifar100", folder=tmp_path)
    assert data.classes == 100
    assert np.array_equal(data.train_y.numpy(), written[1])
    assert np.array_equal(data.test_x.numpy(), written[2])


@pytest.mark.parametrize(
    ("write", "read", "below", "name"),
    [
        (files.write_cifar10, cifar10, "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
        (files.write_cifar100, cifar100, "cifar-100-binary", "cifar-100-binary.tar.gz"),
    ],
)
def test_archives_as_downloaded(tmp_path, write, read, below, name):
    written = write(tmp_path / "files")
    files.write(tmp_path / "files", "readme.html", b"not one of them")
    files.write_archive(tmp_path / name, tmp_path / "files", below)
    assert np.array_equal(read(tmp_path).train_x.numpy(), written[0])


def test_missing_files_are_listed_with_their_places(tmp_path):
    with pytest.raises(FileError) as error:
        load("cifar10", folder=tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: CIFAR-10 (binary version) is not here; expected data_batch_1.bin, data_batch_2.bin, "
        "data_batch_3.bin, data_batch_4.bin, data_batch_5.bin, test_batch.bin in the folder itself or in "
        "cifar-10-batches-bin below it or in cifar-10-binary.tar.gz below it. Nothing is downloaded: get "
        "cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"
    )
    files.write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileError, match=r"not here as a whole, data_batch_3\.bin is missing; expected"):
        load("cifar10", folder=tmp_path)


def test_a_folder_must_be_given_and_be_there(tmp_path):
    with pytest.raises(HwfaultError, match=r"data 'cifar10': no data folder was given; expected data_batch_1\.bin"):
        load("cifar10")
    with pytest.raises(FileError, match=r"none: there is no such folder; data 'cifar100': expected train\.bin"):
        load("cifar100", folder=tmp_path / "none")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "data_batch_1"),
        ("cifar100", "meta"),
    ],
)
def test_the_python_version_is_pickle_and_refused(tmp_path, spec, name):
    files.write(tmp_path, name, b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(FileError, match=rf"only {name} of its Python version, which is pickled code and is not read"):
        load(spec, folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "has 0 bytes, expected records of 3073 bytes"),
        (bytes(RECORD - 1), "has 3072 bytes, expected records of 3073 bytes; it is cut short"),
        (bytes(RECORD + 1), "has 3074 bytes"),
        (bytes(RECORD) + bytes([10]) + bytes(3072), "sample 1 has the label 10, expected 0 to 9"),
        (b"\xff" * RECORD, "sample 0 has the label 255"),
    ],
)
def test_damaged_files(tmp_path, content, text):
    files.write_cifar10(tmp_path)
    path = files.write(tmp_path, "test_batch.bin", content)
    with pytest.raises(FileError) as error:
        load("cifar10", folder=tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert text in str(error.value)


@pytest.mark.parametrize(("coarse", "fine", "text"), [(20, 0, "label 20, expected 0 to 19"), (0, 100, "0 to 99")])
def test_labels_of_cifar100_out_of_range(tmp_path, coarse, fine, text):
    files.write_cifar100(tmp_path)
    files.write(tmp_path, "train.bin", bytes([coarse, fine]) + bytes(3072))
    with pytest.raises(FileError, match=text):
        load("cifar100", folder=tmp_path)


def test_sizes_are_looked_at_before_memory_is_taken(tmp_path, monkeypatch):
    files.write_cifar10(tmp_path)
    with (tmp_path / "data_batch_2.bin").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(FileError, match=r"data_batch_2\.bin: has 1099511627776 bytes, expected a file of at most"):
        load("cifar10", folder=tmp_path)
    (tmp_path / "data_batch_2.bin").unlink()
    (tmp_path / "data_batch_2.bin").mkdir()
    with pytest.raises(FileError, match=r"data_batch_2\.bin: is not a file"):
        load("cifar10", folder=tmp_path)


def archive_of(folder, *members):
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content, kind in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_archives_that_lack_a_file_or_link_elsewhere(tmp_path):
    one = ("d/data_batch_1.bin", bytes(RECORD), tarfile.REGTYPE)
    archive_of(tmp_path, one)
    with pytest.raises(FileError, match=r"cifar-10-binary\.tar\.gz: holds no data_batch_2\.bin"):
        load("cifar10", folder=tmp_path)
    archive_of(tmp_path, ("d/data_batch_1.bin", b"", tarfile.SYMTYPE))
    with pytest.raises(FileError, match=r"holds no data_batch_1\.bin"):
        load("cifar10", folder=tmp_path)


def test_archives_that_unpack_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_ARCHIVE_HOLDS", 1 << 20)
    archive_of(tmp_path, ("d/padding", bytes(2 << 20), tarfile.REGTYPE))
    with pytest.raises(FileError, match="unpacks to more than the 1048576 bytes expected at most"):
        load("cifar10", folder=tmp_path)
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 32  # a name of 4 GiB
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(header.tobuf() + bytes(2 << 20)))
    with pytest.raises(FileError, match="unpacks to more than"):
        load("cifar10", folder=tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"not tar" * 200), gzip.compress(bytes(512))[:-9]],
    ids=("empty", "no gzip", "no tar", "cut"),
)
def test_no_archive_at_all(tmp_path, content):
    files.write(tmp_path, "cifar-10-binary.tar.gz", content)
    with pytest.raises(FileError, match=r"cifar-10-binary\.tar\.gz: (not a readable|holds no)"):
        load("cifar10", folder=tmp_path)
