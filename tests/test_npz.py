"""Arrays in files: what is read, what is refused before memory is taken, and what is written."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwfault.errors import FileError
from hwfault.npz import read_arrays, write_arrays

kinds = st.sampled_from(["float32", "float64", "float16", "int8", "int64", "uint8", "uint64", "bool", ">i4"])
arrays = kinds.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, min_side=0, max_side=5)))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0\\", exclude_categories=["Cs"]), min_size=1)


def same(got, expected):
    return (got.dtype, got.shape, got.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@given(array=arrays)
def test_one_array(tmp_path, array):
    write_arrays(tmp_path / "a.npy", {"anything": array})
    assert same(np.load(tmp_path / "a.npy"), array)
    (got,) = read_arrays(tmp_path / "a.npy").values()
    assert same(got, array)


@given(given_=st.dictionaries(names | st.sampled_from(["file", "/conv/out", "a.npy"]), arrays, max_size=4))
def test_any_number_of_arrays(tmp_path, given_):
    write_arrays(tmp_path / "a.npz", given_)
    with np.load(tmp_path / "a.npz") as archive:
        assert len(archive.files) == len(given_)
    got = read_arrays(str(tmp_path / "a.npz"))
    assert all(same(got[name], array) for name, array in given_.items())


def test_the_content_says_what_a_file_is(tmp_path):
    (tmp_path / "a.npy").write_bytes(archive(a=npy(np.arange(3))))
    assert read_arrays(tmp_path / "a.npy")["a"].tolist() == [0, 1, 2]


def test_arrays_in_fortran_order(tmp_path):
    array = np.asfortranarray(np.arange(6).reshape(2, 3))
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(read_arrays(tmp_path / "a.npy")[""], array)


def npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def header(shape, kind="<f4", content=b""):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


BROKEN = {
    "empty": (b"", "not a readable"),
    "text": (b"1,2,3\n", "not a readable .* write it with numpy.save"),
    "truncated": (npy(np.arange(9))[:-4], r"by its header, but 68 bytes of content"),
    "too much": (npy(np.arange(9)) + b"more", "by its header, but 76 bytes of content"),
    "half a header": (npy(np.arange(9))[:20], "not a readable"),
    "objects": (npy(np.array([{}], object)), "an array is object, expected numbers"),
    "text array": (npy(np.array(["a"])), "an array is <U1, expected numbers"),
    "complex": (npy(np.array([1j])), "an array is complex128, expected numbers"),
    "huge": (header((1 << 40, 1 << 40)), "by its header, but 0 bytes of content"),
    "negative": (header((-1,), content=bytes(8)), "by its header, but 8 bytes of content|not a readable"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(100), r"version \(9, 0\)"),
    "objects in zip": (archive(a=npy(np.array([{}], object))), "a is object, expected numbers"),
    "huge in zip": (archive(a=header((1 << 40, 1 << 40))), "by its header, but 0 bytes of content"),
    "zip without arrays": (archive(a=b"nothing"), "not a readable"),
    "half a zip": (archive(a=npy(np.arange(9)))[:-30], "not a readable"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_holds_no_arrays(tmp_path, what):
    content, text = BROKEN[what]
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(FileError, match=rf"a\.npy: .*({text})"):
        read_arrays(tmp_path / "a.npy")


def test_an_archive_that_would_unpack_to_more_than_there_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy(np.zeros(1 << 20)))
    with pytest.raises(FileError, match="its arrays need 8388736 bytes of memory, expected at most 1048576"):
        read_arrays(tmp_path / "a.npz", largest=1 << 20)
    assert read_arrays(tmp_path / "a.npz", names=["b"], largest=1 << 20) == {}


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(FileError, match=r"there is no such file; expected an \.npy or \.npz file"):
        read_arrays(tmp_path / "none.npy")
    with pytest.raises(FileError, match="not a readable"):
        read_arrays(tmp_path)


@pytest.mark.parametrize(("name", "count"), [("a.txt", 1), ("a", 1), ("a.npy", 0), ("a.npy", 2)])
def test_files_that_cannot_hold_the_arrays(tmp_path, name, count):
    with pytest.raises(FileError, match=rf"for {count} arrays, expected a file \.npz, or \.npy for a single one"):
        write_arrays(tmp_path / name, {str(i): np.zeros(1) for i in range(count)})
    assert not list(tmp_path.iterdir())


def test_an_old_file_stays_where_writing_fails(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"old")
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(tmp_path / "a.npz", {"a": np.array([{}], object)})
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]
