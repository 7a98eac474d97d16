"""Data sets in damaged files: refused, or the very same data; and what no file of its kind can tell, named so.

idx files and the records of CIFAR have no digest. gzip and zip have one, so that behind them every damage shows.
"""

import gzip
import io
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from hwfault.errors import FileError
from hwfault.train.data import load
from tests.helpers.train import files

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
SAMPLES = 3
RECORD = 3073
LABELS_TRIED = (*range(13), 63, 127, 128, 246, 255)


def parts(data):
    return data.train_x, data.train_y, data.test_x, data.test_y


def equal(one, other):
    """Whether two data sets are one: types, shapes, every value, and how many classes."""
    pairs = zip(parts(one), parts(other), strict=True)
    return one.classes == other.classes and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


class Reader:
    """Reads a data set with one of its files damaged."""

    def __init__(self, spec, path, folder=None):
        self.path = path
        self._load = lambda: load(spec, folder=folder)
        self.content = path.read_bytes()
        self.good = self._load()

    def __call__(self, content):
        """The data, None if it is refused by an error that names the file."""
        self.path.write_bytes(content)
        try:
            return self._load()
        except FileError as error:
            if self.path.name not in str(error):
                raise
            return None

    def same(self, content):
        """Whether the data are those of the whole file; None if it is refused."""
        found = self(content)
        return None if found is None else equal(found, self.good)

    def accepted(self, places, bits=range(8)):
        """Which of these bytes may have a bit flipped; the data must be the same then."""
        found = set()
        for at in places:
            for bit in bits:
                same = self.same(flipped(self.content, at, bit))
                assert same in (None, True), (at, bit)
                found |= {at} if same else set()
        return found


def flipped(content, at, bit):
    damaged = bytearray(content)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


def with_byte(content, at, value):
    return content[:at] + bytes([value]) + content[at + 1 :]


@pytest.fixture
def idx(tmp_path):
    """A reader of MNIST's files, one of which is damaged."""

    def reader(name, zipped=False):
        files.write_mnist(tmp_path, n_train=2, n_test=SAMPLES, zipped=zipped)
        return Reader("mnist", tmp_path / f"{name}{'.gz' if zipped else ''}", tmp_path)

    return reader


@pytest.mark.parametrize(("name", "header"), [(IMAGES, 16), (LABELS, 8)])
def test_every_bit_of_an_idx_header_is_checked(idx, name, header):
    read = idx(name)
    assert read.accepted(range(header)) == set()


@pytest.mark.parametrize("shape", [(1, 84, 28), (6, 14, 28), (6, 28, 14), (SAMPLES, 14, 56), (SAMPLES * 784, 1, 1)])
def test_other_shapes_of_as_many_pixels_are_refused(idx, shape):
    read = idx(IMAGES)
    assert read(read.content[:4] + np.array(shape, ">u4").tobytes() + read.content[16:]) is None


def test_cut_idx_files_and_those_with_more_at_their_end_are_refused(idx):
    for name, step in ((IMAGES, 49), (LABELS, 1)):
        read = idx(name)
        assert all(read(read.content[:length]) is None for length in range(0, len(read.content), step))
        assert all(read(read.content + more) is None for more in (b"\0", bytes(784), read.content))


def test_labels_of_an_idx_file_must_be_in_range_and_no_other_change_of_one_can_be_noticed(idx):
    read = idx(LABELS)
    for sample in range(SAMPLES):
        for label in LABELS_TRIED:
            found = read(with_byte(read.content, 8 + sample, label))
            if label > 9:
                assert found is None
                continue
            labels = read.good.test_y.clone()
            labels[sample] = label
            assert equal(found, replace(read.good, test_y=labels))


def test_a_changed_pixel_of_an_idx_file_cannot_be_noticed(idx):
    read = idx(IMAGES)
    for at in (0, 783, 784, SAMPLES * 784 - 1):
        pixels = read.good.test_x.clone()
        pixels.view(-1)[at] ^= 16
        assert equal(read(flipped(read.content, 16 + at, 4)), replace(read.good, test_x=pixels))


GZIP_SAYS_NOTHING = {3, *range(4, 10)}
"""Bytes of gzip's header that say nothing of the content: flags (of a text, reserved ones), time, level, system."""


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_no_damage_to_a_gzipped_idx_file_gives_other_data(idx, name):
    read = idx(name, zipped=True)
    size = len(read.content)
    whole = size < 100
    header, trailer = range(10), range(size - 8, size)
    inner = range(10, size - 8, 1 if whole else 41)
    assert read.accepted(header) == GZIP_SAYS_NOTHING
    assert read.accepted(trailer) == set()
    assert read.accepted(inner, range(8) if whole else (0, 5)) <= {size - 9}, "whose last bits fill up a byte"
    assert all(read(read.content[:length]) is None for length in (*range(0, size, 1 if whole else 97), *trailer))
    assert read(read.content * 2) is None
    assert read.same(read.content + bytes(8)), "gzip lets zeros follow"
    assert read(read.content + b"more") is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_to_an_npz_file_gives_other_data(tmp_path, save):
    """What is accepted says nothing of the arrays: times, versions, attributes, what the archive has twice."""
    path = tmp_path / "data.npz"
    generator = np.random.default_rng(0)
    given = {f"x_{part}": generator.integers(0, 256, (3, 2, 2), np.uint8) for part in ("train", "test")}
    save(path, **given, y_train=np.array([0, 1, 2]), y_test=np.array([2, 0, 1], np.int16))
    read = Reader(str(path), path)
    size = len(read.content)
    for at in range(0, size, 7):
        assert read.same(flipped(read.content, at, at % 8)) in (None, True), at
    assert read.accepted(contents(read.content), (1, 6)) == set()
    assert all(read(read.content[:length]) is None for length in (*range(0, size, 29), *range(size - 22, size)))


def contents(archive):
    """Some bytes of the members of a zip, as they are stored."""
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        for member in members.infolist():
            begin = member.header_offset + 30
            begin += sum(int.from_bytes(archive[begin - n : begin - n + 2], "little") for n in (4, 2))
            yield from range(begin + 1, begin + member.compress_size, 17)  # deflate's first byte may end it or not


def test_the_checksum_of_a_stored_array_with_a_long_header(tmp_path):
    """numpy's header may be of any length, and Python's zipfile looks no more once it has been asked to go back."""
    path = tmp_path / "data.npz"
    x, y = np.arange(12, dtype=np.uint8).reshape(3, 4), np.array([0, 1, 2], np.uint8)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {x.shape}}}".encode().ljust(8999) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in {"x_train": x, "y_train": y, "x_test": x, "y_test": y}.items():
            with archive.open(f"{name}.npy", "w") as stream:
                if name == "x_train":
                    stream.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + x.tobytes())
                else:
                    np.save(stream, array)
    read = Reader(str(path), path)
    assert torch.equal(read.good.train_x, torch.arange(12.0).reshape(3, 4))
    at = read.content.index(x.tobytes())
    assert read(flipped(read.content, at, 0)) is None


@pytest.fixture
def cifar(tmp_path):
    """A reader of one of CIFAR-10's files."""
    files.write_cifar10(tmp_path, n_train=5, n_test=2)
    return Reader("cifar10", tmp_path / "test_batch.bin", tmp_path)


def test_cifar_files_that_are_no_whole_records_are_refused(cifar):
    whole = len(cifar.content)
    assert whole == 2 * RECORD
    for length in (0, 1, RECORD - 1, RECORD + 1, whole - 1):
        assert cifar(cifar.content[:length]) is None
    for more in (b"\0", bytes(RECORD - 1), bytes(RECORD + 1)):
        assert cifar(cifar.content + more) is None


def test_a_cifar_file_cut_between_two_records_cannot_be_noticed(cifar):
    """Nor one that has more of them: a file says nowhere how many it has."""
    good, short = cifar.good, cifar(cifar.content[:RECORD])
    assert equal(short, replace(good, test_x=good.test_x[:1], test_y=good.test_y[:1]))
    long = cifar(cifar.content + cifar.content[:RECORD])
    assert equal(long, replace(good, test_x=good.test_x[[0, 1, 0]], test_y=good.test_y[[0, 1, 0]]))


def test_labels_of_cifar_must_be_in_range_and_no_other_change_of_one_can_be_noticed(cifar):
    for label in LABELS_TRIED:
        found = cifar(with_byte(cifar.content, RECORD, label))
        if label > 9:
            assert found is None
            continue
        assert equal(found, replace(cifar.good, test_y=torch.tensor([cifar.good.test_y[0], label])))


def test_a_changed_pixel_of_cifar_cannot_be_noticed(cifar):
    for at in (0, 1024, 3071):
        pixels = cifar.good.test_x.clone()
        pixels[1].view(-1)[at] ^= 1
        assert equal(cifar(flipped(cifar.content, RECORD + 1 + at, 0)), replace(cifar.good, test_x=pixels))


@pytest.fixture
def archive(tmp_path):
    """A reader of CIFAR-10's archive, with a file in it that is none of the data set's at its end."""
    files.write_cifar10(tmp_path / "files", n_train=5, n_test=1)
    files.write(tmp_path / "files", "unread.html", b"not one of them")
    path = tmp_path / "in" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    files.write_archive(path, tmp_path / "files")
    return Reader("cifar10", path, path.parent)


def test_no_damage_to_an_archive_of_cifar_gives_other_data(archive):
    size = len(archive.content)
    name = archive.content.index(b"\0", 10) + 1 if archive.content[3] & 8 else 10
    assert archive.accepted(range(10), (0, 5)) <= GZIP_SAYS_NOTHING
    assert archive.accepted(range(size - 8, size)) == set()
    assert archive.accepted(range(name, size - 8, 151), (3,)) == set()
    assert all(archive(archive.content[:length]) is None for length in (*range(0, size, 997), *range(size - 9, size)))


def test_names_and_sizes_in_an_archive_of_cifar_have_a_checksum_and_contents_have_none(archive):
    """An archive that was damaged before it was zipped."""
    tar = gzip.decompress(archive.content)
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        begins = [member.offset_data for member in opened if member.name.endswith(".bin")]
    for begin in begins:
        for at in (0, 21, 124, 130, 148, 156, 257, 345, 511):  # name, size, checksum, kind, magic number, the rest
            assert archive.same(gzip.compress(flipped(tar, begin - 512 + at, 1), 1)) in (None, True)
    pixels = archive.good.train_x.clone()
    pixels[0].view(-1)[7] ^= 4
    assert equal(archive(gzip.compress(flipped(tar, begins[0] + 1 + 7, 2), 1)), replace(archive.good, train_x=pixels))
