"""Maps of devices laid over tensors: one behind the other, by mappings of one's own, and maps that are none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import FileError, HwfaultError, ModelError
from hwfault.graph.run.strike import strike_codes
from hwfault.laws.models import MapFaults, ProfileFaults
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.layouts import Stored
from hwfault.stream.mapping import Linear
from hwfault.stream.protection_scheme import Protection
from tests.helpers.stream import protection_oracle as oracle
from tests.laws.test_profile import SITES, SRAM, WEIGHTS, cells, map_of, saved, sram


def every_cell(folder, bits, cells_of_it, kind=0):
    """A device of which every cell is faulty."""
    words = cells_of_it // bits
    whole = np.full(words, 2**32 - 1 if kind == 0 else 0, np.uint32)
    FaultMap(bits, words, np.arange(words), whole, np.full(words, (1 << bits) - 1, np.uint32)).save(folder / "all")
    return str(folder / "all")


@given(st.lists(st.tuples(st.integers(0, 2303), st.integers(0, 31)), max_size=20), st.integers(0, 3))
def test_tensors_one_behind_the_other_share_no_cell(tmp_path_factory, some, first_row):
    """Every faulty cell of a packed memory shows in one tensor at one place, or in none."""
    folder = tmp_path_factory.mktemp("maps")
    sites = [SITES[1].model_copy(update={"shape": (64, 9)}), SITES[4].model_copy(update={"shape": (50, 33)})]
    path = saved(folder, 2304, 32, [(w, b, 0) for w, b in dict.fromkeys(some)])
    plan = resolve(sites, [MapFaults(file=path, first_row=first_row)])
    starts = {}
    row = first_row
    for site in sites:
        starts[site.name] = row * 32
        row += -(-site.words * site.bit_width // 32)
    found = {}
    for site in sites:
        for word, bit, _ in cells(map_of(plan, site.name)):
            cell = starts[site.name] + word * site.bit_width + bit
            assert cell not in found
            found[cell] = site.name
    held = {starts[s.name] + i for s in sites for i in range(s.words * s.bit_width)}
    assert set(found) == {w * 32 + b for w, b in some} & held


def test_a_mapping_of_ones_own(tmp_path):
    """Padded words, highest bit first, in rows of 8: the word of 3 bits lies in columns 2, 1, 0 or 6, 5, 4."""
    site = SITES[4].model_copy(update={"shape": (4,)})
    path = saved(tmp_path, 2, 8, [(0, 0, 1), (0, 3, 1), (0, 6, 2), (1, 5, 0)])
    mapping = Linear(row_bits=8, packing="padded", bit_order="msb_first")
    plan = resolve([site], [MapFaults(file=path, mapping=mapping)])
    expected = set()
    layout = mapping.layout([Stored("b.weight", (4,), 3)])
    for word in range(4):
        for bit in range(3):
            cell = int(layout.cells("b.weight", word, bit))
            kind = {0: 1, 3: 1, 6: 2, 13: 0}.get(cell)
            expected |= {(word, bit, kind)} if kind is not None else set()
    assert cells(map_of(plan, "b.weight")) == expected
    assert len(expected) >= 2


@pytest.mark.parametrize(("bits", "slot"), [(1, 1), (3, 4), (5, 8), (8, 8), (9, 16)])
def test_padded_words_of_a_protected_memory(bits, slot):
    """Lowest bit first: a memory word of 64 data bits holds 64 / slot code words, each in the low bits of its slot."""
    words = 16 * 64 // slot
    site = Site(name="w", kind="weight", bit_width=bits, signed=False, shape=(words,))
    secded, padded = Protection(kind="secded", data_bits=64), Linear(row_bits=64, packing="padded")
    fault = ProfileFaults(profile=SRAM, at={"operating_point": 0}, protection=secded, mapping=padded)
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (1, words), dtype=np.uint32)
    changed = 0
    for device in range(8):
        plan = resolve([site], [fault], device=device)
        (process,), (step,) = plan.at("w").processes, plan.steps("w")
        masks = (process.map.word, process.map.and_mask, process.map.xor_mask)
        rows = tuple(zip(*(column.tolist() for column in masks), strict=True))
        assert process.map.words == 16 * 4, "16 memory words of 72 cells, in four sub-words each"
        memory = oracle.Memory("secded", 64, slot)
        expected, _ = oracle.protect(codes[0].tolist(), memory, bits, [], 0, 0, oracle.Map(rows))
        assert strike_codes(step, codes, 0, np.zeros(1, np.int64), False)[0].tolist() == expected
        changed += expected != codes[0].tolist()
    assert changed > 0, "several of a memory word's cells are faulty at once"


def test_a_buffer_that_is_used_again(tmp_path):
    """Two rows of 8 bits serve four words of 4 bits after four: one faulty cell shows in every fourth."""
    site = SITES[1].model_copy(update={"shape": (10,)})
    path = saved(tmp_path, 2, 8, [(1, 5, 2)])
    plan = resolve([site], [MapFaults(file=path, mapping=Linear(rows=2, row_bits=8, tile="repeat"))])
    assert cells(map_of(plan, "a.weight")) == {(3, 1, 2), (7, 1, 2)}


def test_the_rows_of_a_map_may_be_longer_than_its_words(tmp_path):
    """Rows of 64 bits told of in words of 32: `row_bits` in the provenance, and tensors begin on new rows."""
    sites = [SITES[1].model_copy(update={"shape": (3,)}), SITES[4].model_copy(update={"shape": (2,)})]
    path = saved(tmp_path, 4, 32, [(0, 5, 0), (0, 13, 0), (2, 4, 0)], row_bits="64")
    plan = resolve(sites, [MapFaults(file=path)])
    assert cells(map_of(plan, "a.weight")) == {(1, 1, 0)}
    assert cells(map_of(plan, "b.weight")) == {(1, 1, 0)}
    later = resolve(sites[1:], [MapFaults(file=path, first_row=1)])
    assert cells(map_of(later, "b.weight")) == {(1, 1, 0)}


def test_representations_go_with_the_mapping(tmp_path):
    mapping = Linear(row_bits=32, representation="offset_binary")
    plan = resolve(
        SITES, [sram(mapping=mapping), ProfileFaults(profile="uniform-flips", at={"ber": 0.1}, mapping=mapping)]
    )
    assert {p.representation for name in WEIGHTS for p in plan.at(name).processes} == {"offset_binary"}
    assert [step.representation for step in plan.steps("a.weight")] == ["offset_binary"] * 2


def test_a_map_too_small_names_both_sizes(tmp_path):
    with pytest.raises(ModelError, match=r"\b10\b.*\b4\b|\b40\b") as error:
        resolve(SITES, [MapFaults(file=saved(tmp_path, 10, 4, []))])
    needed = -(-64 * 16 * 9 * 4 // 4) + -(-33000 * 3 // 4)
    assert str(needed) in str(error.value) or str(needed * 4) in str(error.value)


@pytest.mark.parametrize(("first_row", "words"), [(10, "first_row is 10"), (10**9, "first_row is 1000000000")])
def test_first_rows_outside_the_map(tmp_path, first_row, words):
    with pytest.raises(ModelError, match=words):
        resolve(SITES, [MapFaults(file=saved(tmp_path, 10, 4, []), first_row=first_row)])


def test_files_that_are_no_map(tmp_path):
    (tmp_path / "foreign").write_bytes(b"word,bit\n1,2\n")
    for name, words in (("nowhere", "cannot be read"), ("foreign", "not a fault map")):
        with pytest.raises(FileError, match=f"{name}: {words}"):
            resolve(SITES, [MapFaults(file=str(tmp_path / name))])


@pytest.mark.parametrize("row_bits", ["wide", "0", "-4", "", "1e9", "99999999999"])
def test_a_map_whose_provenance_is_wrong(tmp_path, row_bits):
    path = saved(tmp_path, 10**5, 32, [], row_bits=row_bits)
    with pytest.raises(HwfaultError, match="row_bits"):
        resolve(SITES, [MapFaults(file=path)])
