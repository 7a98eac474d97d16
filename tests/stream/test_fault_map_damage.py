"""Fault maps in damaged files: refused by the digest, and of files without one what is checked and what is not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from hwfault.errors import FileError
from hwfault.stream.fault_map import FaultMap, Kind

MAP = FaultMap.from_cells(
    1000, 12, [3, 992, 2], [11, 0, 5], [Kind.STUCK_AT_0, Kind.FLIP, Kind.STUCK_AT_1], {"device": "7"}
)
SIZE = {"format": "hwfault-map/1", "bit_width": "12", "words": "1000", "provenance": json.dumps(dict(MAP.provenance))}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "device.safetensors"


def read(path, content):
    """The map in such a file, None if it is refused."""
    path.write_bytes(content)
    try:
        return FaultMap.load(path)
    except FileError:
        return None


def with_a_bit_flipped(content, at, bit):
    damaged = bytearray(content)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


def without_digest(path, fault_map=MAP, **size):
    """A file as hwfault 0.4.0 wrote it, with the map's rows and another size or text."""
    rows = {name: getattr(fault_map, name) for name in ("word", "and_mask", "xor_mask")}
    save_file(rows, path, metadata=SIZE | size)
    return path


def test_no_flipped_bit_gives_another_map(path):
    """One of each byte: an error, or the same map where the key that names the digest is hit."""
    MAP.save(path)
    good = path.read_bytes()
    name = good.index(b'"sha256"') + 1
    accepted = set()
    for at in range(len(good)):
        found = read(path, with_a_bit_flipped(good, at, at % 5))
        assert found in (None, MAP), at
        accepted |= {at} if found is not None else set()
    assert accepted == set(range(name, name + len("sha256")))


def test_no_damage_of_several_bytes_gives_another_map(path):
    MAP.save(path)
    rng, good = np.random.default_rng(0), path.read_bytes()
    for _ in range(200):
        damaged = bytearray(good)
        for at in rng.integers(0, len(good), rng.integers(2, 5)):
            damaged[at] = rng.integers(0, 256)
        assert read(path, damaged) in (None, MAP)


def test_files_that_are_cut_or_have_more_at_their_end_are_refused(path):
    for file in (MAP.save, lambda path: without_digest(path)):
        file(path)
        good = path.read_bytes()
        assert read(path, good) == MAP
        assert all(read(path, good[:length]) is None for length in (*range(0, len(good), 9), len(good) - 1))
        assert all(read(path, good + more) is None for more in (b"\0", b" ", bytes(8), good))


@pytest.mark.parametrize(
    "other",
    [
        replace(MAP, bit_width=13),
        replace(MAP, words=1001),
        replace(MAP, word=np.array([1, 3, 992])),
        replace(MAP, and_mask=MAP.and_mask ^ np.uint32(4)),
        replace(MAP, xor_mask=MAP.xor_mask ^ np.uint32(4)),
        replace(MAP, provenance={"device": "6"}),
        replace(MAP, provenance={}),
    ],
    ids=["bit width", "words", "word", "and_mask", "xor_mask", "provenance", "no provenance"],
)
def test_the_digest_is_of_everything_that_a_map_is(path, other):
    """Whole and well formed files, with the digest of another map."""
    other.save(path)
    theirs = digest_in(path)
    assert FaultMap.load(path) == other
    MAP.save(path)
    mine = digest_in(path)
    assert mine != theirs
    content = path.read_bytes()
    path.write_bytes(content.replace(mine.encode(), theirs.encode()))
    with pytest.raises(FileError, match="was damaged or edited, its content has not the SHA-256 that it names"):
        FaultMap.load(path)


def digest_in(path):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]["sha256"]


def test_without_a_digest_what_no_map_can_have_is_refused_and_no_other_flipped_bit_can_be_noticed(path):
    """What is checked is the order of the words, their range, and the width of the masks that set bits."""
    without_digest(path)
    good = path.read_bytes()
    begin = 8 + int.from_bytes(good[:8], "little")
    header = json.loads(good[8:begin])
    for name in ("word", "and_mask", "xor_mask"):
        first, end = header[name]["data_offsets"]
        for at in range(first, end):
            for bit in range(8):
                found = read(path, with_a_bit_flipped(good, begin + at, bit))
                column = np.frombuffer(
                    with_a_bit_flipped(getattr(MAP, name).tobytes(), at - first, bit), getattr(MAP, name).dtype
                )
                if is_possible(name, column):
                    assert found == replace(MAP, **{name: column})
                else:
                    assert found is None, (name, at, bit)


def is_possible(name, column):
    if name == "word":
        return bool((np.diff(column) > 0).all() and column[0] >= 0 and column[-1] < MAP.words)
    return name == "and_mask" or bool((column < 1 << MAP.bit_width).all())


NUMBERS = ["+12", "-12", " 12", "12 ", "1_2", "12.", "0x12", "１２", "", "12\0", "1e1"]  # noqa: RUF001


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["bit_width", "words"])
def test_numbers_that_are_not_written_as_hwfault_writes_them(path, name, number):
    """Python takes some of these for numbers, which others than the ones before the damage may be."""
    small = FaultMap.from_cells(12, 12, [3], [11], [Kind.FLIP], MAP.provenance)
    assert FaultMap.load(without_digest(path, small, words="12")) == small
    with pytest.raises(FileError, match="not a fault map"):
        FaultMap.load(without_digest(path, small, **{"words": "12", name: number}))
