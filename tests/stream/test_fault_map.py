"""Fault maps: cells and rows, what they do to words, how they compose, and the file they are kept in."""

import json
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hwfault.errors import FileError, ModelError
from hwfault.stream.fault_map import FaultMap, Kind

FULL = 2**32 - 1


def does(kind, bit):
    """What a faulty cell makes of a stored bit, by the definition of its kind."""
    return {Kind.FLIP: 1 - bit, Kind.STUCK_AT_0: 0, Kind.STUCK_AT_1: 1}[kind]


def struck(code, cells):
    """The code of a word after its faulty cells, bit by bit; `cells` maps bits to kinds."""
    for bit, kind in cells.items():
        stored = code >> bit & 1
        code += (does(kind, stored) - stored) << bit
    return code


@st.composite
def memories(draw, kinds=tuple(Kind), most=12):
    """(words, bit width, [(word, bit, kind)]), the cells in any order and some named twice."""
    words, bits = draw(st.integers(1, 2000)), draw(st.integers(1, 32))
    cell = st.tuples(st.integers(0, words - 1), st.integers(0, bits - 1), st.sampled_from(kinds))
    return words, bits, draw(st.lists(cell, max_size=most))


def made(words, bits, cells, provenance=None):
    columns = zip(*cells, strict=True) if cells else ([], [], [])
    return FaultMap.from_cells(words, bits, *map(list, columns), provenance)


def first_of(cells):
    """{(word, bit): kind}, the first where a cell is named twice."""
    return {(w, b): k for w, b, k in reversed(cells)}


def by_word(cells):
    grouped = {}
    for (w, b), k in first_of(cells).items():
        grouped.setdefault(w, {})[b] = k
    return grouped


def codes_of(words, bits, rows=2, seed=0):
    return np.random.default_rng(seed).integers(0, 2**bits, (rows, words), dtype=np.uint64).astype(np.uint32)


@given(memories())
def test_cells_come_back_ascending_and_the_first_of_equals_stands(memory):
    words, bits, cells = memory
    fault_map = made(*memory)
    expected = sorted((w, b, int(k)) for (w, b), k in first_of(cells).items())
    word, bit, kind = fault_map.cells()
    assert list(zip(word.tolist(), bit.tolist(), kind.tolist(), strict=True)) == expected
    assert (word.dtype, bit.dtype, kind.dtype) == (np.int64, np.int64, np.uint8)
    assert FaultMap.from_cells(words, bits, word, bit, kind) == fault_map
    assert fault_map.word.tolist() == sorted({w for w, _, _ in cells})
    assert len(fault_map) == len(by_word(cells))


def test_masks_are_those_of_the_specification():
    fault_map = made(9, 4, [(7, 2, Kind.FLIP), (1, 0, Kind.STUCK_AT_1), (7, 3, Kind.STUCK_AT_0), (1, 0, Kind.FLIP)])
    assert fault_map.word.tolist() == [1, 7]
    assert [mask & 0xF for mask in fault_map.and_mask.tolist()] == [0b1110, 0b0111]
    assert fault_map.xor_mask.tolist() == [0b0001, 0b0100]


@given(memories())
def test_applied_it_is_its_cells_one_by_one(memory):
    words, bits, cells = memory
    codes, grouped = codes_of(words, bits), by_word(cells)
    given_codes = codes.copy()
    after = made(*memory).apply(codes)
    expected = [[struck(int(c), grouped.get(w, {})) for w, c in enumerate(row)] for row in codes]
    assert after.tolist() == expected
    assert after.dtype == np.uint32
    np.testing.assert_array_equal(codes, given_codes, err_msg="apply changed its input")


def test_every_kind_on_every_bit_of_a_word_of_32():
    for kind, bit, stored in product(Kind, range(32), (0, 1)):
        code = stored << bit | (0xA5A5A5A5 & ~(1 << bit))
        after = made(1, 32, [(0, bit, kind)]).apply(np.array([code], np.uint32))
        assert after.tolist() == [struck(code, {bit: kind})]


@given(memories(), st.data())
def test_composition_is_one_map_after_the_other(memory, data):
    words, bits, _ = memory
    cell = st.tuples(st.integers(0, words - 1), st.integers(0, bits - 1), st.sampled_from(Kind))
    a, b, c = made(*memory), *(made(words, bits, data.draw(st.lists(cell, max_size=12))) for _ in range(2))
    codes = codes_of(words, bits)
    np.testing.assert_array_equal(a.then(b).apply(codes), b.apply(a.apply(codes)))
    assert a.then(b).then(c) == a.then(b.then(c))


@pytest.mark.parametrize(("first", "second"), list(product(Kind, Kind)))
def test_two_faults_on_one_cell(first, second):
    one, other = (made(3, 5, [(1, 4, kind)]) for kind in (first, second))
    for stored in (0, 16):
        codes = np.array([0, stored, 31], np.uint32)
        expected = [0, does(second, does(first, stored >> 4)) << 4, 31]
        assert one.then(other).apply(codes).tolist() == expected


@given(memories(kinds=(Kind.STUCK_AT_0, Kind.STUCK_AT_1)))
def test_stuck_cells_applied_twice_change_nothing_more(memory):
    fault_map, codes = made(*memory), codes_of(*memory[:2])
    once = fault_map.apply(codes)
    np.testing.assert_array_equal(fault_map.apply(once), once)
    assert fault_map.then(fault_map) == fault_map


@given(memories(kinds=(Kind.FLIP,)))
def test_flips_applied_twice_are_none(memory):
    fault_map, codes = made(*memory), codes_of(*memory[:2])
    twice = fault_map.then(fault_map)
    np.testing.assert_array_equal(fault_map.apply(fault_map.apply(codes)), codes)
    np.testing.assert_array_equal(twice.apply(codes), codes)
    assert twice.cells()[0].size == 0


def test_maps_of_other_memories():
    fault_map = made(10, 4, [(1, 1, Kind.FLIP)])
    with pytest.raises(ModelError, match="a fault map of 10 words for 11"):
        fault_map.apply(np.zeros((2, 11), np.uint32))
    for other in (made(11, 4, []), made(10, 5, [])):
        with pytest.raises(ModelError, match="do not compose"):
            fault_map.then(other)


def test_maps_are_equal_by_content_and_have_no_hash():
    one = made(10, 4, [(1, 1, Kind.FLIP)], {"a": "b"})
    assert one == made(10, 4, [(1, 1, Kind.FLIP)], {"a": "b"})
    others = (
        made(10, 4, [(1, 1, Kind.FLIP)]),
        made(11, 4, [(1, 1, Kind.FLIP)], {"a": "b"}),
        made(10, 5, [(1, 1, Kind.FLIP)], {"a": "b"}),
        made(10, 4, [(1, 1, Kind.STUCK_AT_1)], {"a": "b"}),
    )
    assert all(one != other for other in others)
    assert one != "a map"
    with pytest.raises(TypeError):
        hash(one)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ((10, 0, 0), r"\(word 10, bit 0\) lies outside a memory of 10 words of 4 bits"),
        ((-1, 0, 0), r"\(word -1, bit 0\)"),
        ((0, 4, 0), r"\(word 0, bit 4\)"),
        ((0, -1, 0), r"\(word 0, bit -1\)"),
        ((0, 0, 3), "the kind of fault 3"),
        ((0, 0, -1), "the kind of fault -1"),
    ],
)
def test_cells_that_are_none(cell, words):
    with pytest.raises(ModelError, match=words):
        made(10, 4, [(2, 2, 1), cell])


def test_columns_of_unequal_length():
    with pytest.raises(ModelError, match="2 words, 1 bits and 2 kinds"):
        FaultMap.from_cells(10, 4, [1, 2], [1], [0, 0])


@pytest.mark.parametrize(
    ("size", "words"),
    [((0, 10), "of 0 bits"), ((33, 10), "of 33 bits"), ((4, -1), "-1 words"), ((4, 2**36 + 1), "expected 0 to 2")],
)
def test_sizes_that_are_none(size, words):
    with pytest.raises(ModelError, match=words):
        FaultMap(*size, [], [], [])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (([1, 1], [0, 0], [0, 0]), "ascending"),
        (([2, 1], [0, 0], [0, 0]), "ascending"),
        (([-1], [0], [0]), "word -1 of a memory of 10"),
        (([10], [0], [0]), "word 10 of a memory of 10"),
        (([1], [0], [16]), "bits beyond the 4"),
        (([1, 2], [0], [0]), "one length"),
        (([[1]], [[0]], [[0]]), "one length"),
        (([1.5], [0], [0]), "integers"),
        (([1], [0.5], [0]), "integers"),
        (([1], np.array([-1]), [0]), "and_mask"),
        (([1], np.array([2**32]), [0]), "and_mask"),
        (([1], [0], np.array([2**32 + 1])), "xor_mask"),
        (([1], [-1], [0]), "and_mask"),
        (([2**64], [0], [0]), "word"),
    ],
)
def test_rows_that_are_none(rows, words):
    with pytest.raises(ModelError, match=words):
        FaultMap(4, 10, *rows)


def test_maps_of_nothing():
    for words in (0, 5):
        fault_map = made(words, 7, [])
        assert len(fault_map) == 0
        assert [column.size for column in fault_map.cells()] == [0, 0, 0]
        codes = codes_of(words, 7)
        np.testing.assert_array_equal(fault_map.apply(codes), codes)


SOME = made(
    1000, 12, [(3, 11, Kind.STUCK_AT_0), (999, 0, Kind.FLIP), (0, 5, Kind.STUCK_AT_1)], {"device": "7", "é": "ß"}
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "device.safetensors"
    SOME.save(path)
    return path


def test_saved_and_loaded_it_is_the_same(saved, tmp_path):
    loaded = FaultMap.load(saved)
    assert loaded == SOME
    assert (loaded.word.dtype, loaded.and_mask.dtype, loaded.xor_mask.dtype) == (np.int64, np.uint32, np.uint32)
    loaded.save(str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()
    assert FaultMap.load(str(saved)) == SOME


@given(memories(), st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_any_map_survives_its_file(tmp_path_factory, memory, provenance):
    path = tmp_path_factory.mktemp("maps") / "m"
    fault_map = made(*memory, provenance)
    fault_map.save(path)
    assert FaultMap.load(path) == fault_map


def test_equal_maps_have_equal_files(saved, tmp_path):
    """In every process and each time, though a safetensors file may list its metadata in any order."""
    code = (
        "import sys\nfrom hwfault.stream.fault_map import FaultMap\nm = FaultMap.load(sys.argv[1])\n"
        "for i in range(8): m.save(f'{sys.argv[2]}/{i}')\n"
    )
    subprocess.run([sys.executable, "-c", code, saved, tmp_path], check=True)
    assert {(tmp_path / str(i)).read_bytes() for i in range(8)} == {saved.read_bytes()}


def test_an_empty_map_has_a_file_too(tmp_path):
    made(0, 1, []).save(tmp_path / "m")
    assert FaultMap.load(tmp_path / "m") == made(0, 1, [])


def header_and_rest(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def test_the_file_is_plain_safetensors(saved):
    header, _ = header_and_rest(saved.read_bytes())
    metadata = header.pop("__metadata__")
    assert {name: entry["dtype"] for name, entry in header.items()} == {
        "word": "I64",
        "and_mask": "U32",
        "xor_mask": "U32",
    }
    assert json.loads(metadata.pop("provenance")) == {"device": "7", "é": "ß"}
    digest = "a07cd674e60aba0e0149b559b7cbfb0ebaf77004075c1fcda2cedb403bafddcd"
    assert metadata == {"format": "hwfault-map/1", "bit_width": "12", "words": "1000", "sha256": digest}


ROWS = {
    "word": np.array([0, 3], np.int64),
    "and_mask": np.array([FULL, FULL - 1], np.uint32),
    "xor_mask": np.array([1, 0], np.uint32),
}
SIZE = {"format": "hwfault-map/1", "bit_width": "4", "words": "10", "provenance": "{}"}


def test_the_file_to_be_broken_is_good(tmp_path):
    save_file(ROWS, tmp_path / "m", metadata=SIZE)
    assert FaultMap.load(tmp_path / "m") == FaultMap(4, 10, *ROWS.values())


WRONG = {
    "no tensor": ({"word": None}, {}, "word"),
    "words of another type": ({"word": np.array([0, 3], np.int32)}, {}, "word is int32"),
    "masks of another type": ({"and_mask": np.array([1.0, 2.0], np.float32)}, {}, "and_mask is float32"),
    "signed masks": ({"xor_mask": np.array([1, 0], np.int32)}, {}, "xor_mask is int32"),
    "two axes": ({"word": np.array([[0, 3]], np.int64)}, {}, "word is int64 of 2 axes"),
    "other lengths": ({"word": np.array([3], np.int64)}, {}, "one length"),
    "rows out of order": ({"word": np.array([3, 0], np.int64)}, {}, "ascending"),
    "a word twice": ({"word": np.array([3, 3], np.int64)}, {}, "ascending"),
    "a negative word": ({"word": np.array([-1, 3], np.int64)}, {}, "word -1"),
    "a word beyond": ({"word": np.array([0, 10], np.int64)}, {}, "word 10 of a memory of 10"),
    "a mask too wide": ({"xor_mask": np.array([16, 0], np.uint32)}, {}, "bits beyond the 4"),
    "another format": ({}, {"format": "hwfault-map/2"}, "no fault map (format 'hwfault-map/2'"),
    "no format": ({}, {"format": None}, "no fault map (format None"),
    "no width": ({}, {"bit_width": None}, "bit_width"),
    "no number of words": ({}, {"words": None}, "words"),
    "no provenance": ({}, {"provenance": None}, "provenance"),
    "a width that is no number": ({}, {"bit_width": "four"}, "four"),
    "words that are no number": ({}, {"words": "1e3"}, "1e3"),
    "a number too long": ({}, {"words": "9" * 5000}, "digits"),
    "a width too large": ({}, {"bit_width": "33"}, "of 33 bits"),
    "too many words": ({}, {"words": str(2**36 + 1)}, "expected 0 to 2^36"),
    "provenance that is no JSON": ({}, {"provenance": "{"}, "Expecting"),
    "provenance that is no mapping": ({}, {"provenance": "[1]"}, ""),
    "provenance too deep": ({}, {"provenance": "[" * 100_000}, ""),
}


@pytest.mark.parametrize(("rows", "size", "words"), list(WRONG.values()), ids=list(WRONG))
def test_files_that_are_wrong(tmp_path, rows, size, words):
    path = tmp_path / "m.safetensors"
    tensors = {k: v for k, v in (ROWS | rows).items() if v is not None}
    save_file(tensors, path, metadata={k: v for k, v in (SIZE | size).items() if v is not None})
    with pytest.raises(FileError) as error:
        FaultMap.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "BOOL", "F64", "C64", "X9", 7, None])
def test_types_of_tensors_that_numpy_may_not_know(saved, dtype):
    header, rest = header_and_rest(saved.read_bytes())
    header["word"]["dtype"] = dtype
    text = json.dumps(header).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + rest)
    with pytest.raises(FileError, match="fault map"):
        FaultMap.load(saved)


def test_files_of_another_kind(saved, tmp_path):
    path, data = tmp_path / "x", saved.read_bytes()
    network = tmp_path / "network"
    save_file({"weight": np.zeros(3, np.float32)}, network)
    foreign = [b"", b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.", b"word,bit\n1,2\n", bytes(100), b"\xff" * 100]
    for content in (*foreign, network.read_bytes(), *(data[:n] for n in range(0, len(data), 7)), data + b"more"):
        path.write_bytes(content)
        with pytest.raises(FileError, match="fault map"):
            FaultMap.load(path)
    for nothing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileError, match=r"cannot be read .*expected a fault map"):
            FaultMap.load(nothing)


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileError):
        SOME.save(tmp_path / "file" / "m")
