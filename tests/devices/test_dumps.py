"""Loaders of measured maps: what is read from each format, and the one clear error that anything else gets."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwfault.devices.dumps import FORMATS, load_dump, parse_dump
from hwfault.errors import FileError, ModelError
from hwfault.stream.fault_map import Kind
from tests.helpers.profiles.kc705 import hex_dump, measured


@pytest.fixture
def load(tmp_path):
    def from_content(content, **settings):
        path = tmp_path / "dump"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_dump(path, **settings)

    return from_content


@pytest.fixture
def load_pair(tmp_path):
    def from_contents(written, read, **settings):
        (tmp_path / "w").write_bytes(written)
        (tmp_path / "r").write_bytes(read)
        return load_dump(f"{tmp_path / 'w'}:{tmp_path / 'r'}", **settings)

    return from_contents


def found(measurement):
    return list(zip(*(x.tolist() for x in measurement.faults()), strict=True))


CELLS = np.zeros((3, 1024, 8), bool)
CELLS[0, 0, 0] = CELLS[0, 5, 7] = CELLS[2, 1023, 3] = True
KC705 = [(0, 0, 1), (5, 7, 1), (3071, 3, 1)]


def test_the_studys_dumps(load):
    dump = load(hex_dump(CELLS))
    assert found(dump) == KC705
    assert (dump.rows, dump.row_bits, dump.block_rows, dump.cells) == (3072, 8, 1024, 24576)
    assert (dump.listed, dump.listed_cells) == (6, 49152)
    assert dump.by_kind() == (0, 3, 0)
    assert dump.observable == (Kind.STUCK_AT_0,)
    assert load(hex_dump(CELLS), at={"voltage_v": 0.53}).map.provenance == {
        "measured": "dump",
        "row_bits": "8",
        "operating_point": "voltage_v=0.53",
    }


def test_line_breaks_and_lower_case_do_no_harm(load):
    lines = b"\r\n".join(hex_dump(CELLS)[i : i + 64] for i in range(0, 3 * 4096, 64)).lower() + b"\n"
    assert found(load(lines)) == KC705


@pytest.mark.parametrize(
    ("voltage", "faults", "listed"), [("0.53", 1137, 2274), ("0.56", 31, 62)], ids=["0.53 V", "0.56 V"]
)
def test_the_measured_dumps(voltage, faults, listed):
    dump = load_dump(measured(voltage))
    assert (len(found(dump)), dump.listed, dump.listed_cells) == (faults, listed, 14_581_760)
    assert (dump.rows, dump.row_bits) == (890 * 1024, 8)


@given(arrays(bool, (2, 1024, 8), elements=st.sampled_from([False] * 50 + [True])))
def test_any_dump_of_the_study_comes_back(tmp_path, cells):
    (tmp_path / "dump").write_bytes(hex_dump(cells))
    row, column, _ = load_dump(tmp_path / "dump").faults()
    back = np.zeros((2048, 8), bool)
    back[row, column] = True
    assert np.array_equal(back.reshape(cells.shape), cells)


CSV = """# a test, rows = 16, row_bits = 4
address,bit,kind
0,3,flip
0x0A, 0 ,stuck_at_1
7,1,1
"""
LISTED = [(0, 3, 0), (7, 1, 1), (10, 0, 2)]


def test_csv(load):
    dump = load(CSV)
    assert found(dump) == LISTED
    assert (dump.rows, dump.row_bits, dump.block_rows) == (16, 4, 16)
    assert dump.observable == tuple(Kind)
    assert found(load("bit,address\n3,1\n", rows=2, row_bits=4)) == [(1, 3, 0)]
    assert load("address,bit,kind\n", rows=2, row_bits=4).by_kind() == (0, 0, 0)


def test_csv_where_a_cell_is_named_twice_the_first_stands(load):
    assert found(load("address,bit,kind\n1,1,2\n1,1,0\n", rows=2, row_bits=4)) == [(1, 1, 2)]


def npz(**named):
    file = io.BytesIO()
    np.savez(file, **named)
    return file.getvalue()


def test_npz(load):
    address, bit, kind = ([row[i] for row in LISTED] for i in range(3))
    dump = load(npz(address=address, bit=np.uint8(bit), kind=kind, rows=16, row_bits=4))
    assert found(dump) == LISTED
    assert (dump.rows, dump.row_bits) == (16, 4)
    assert found(load(npz(address=[1], bit=[2]), rows=2, row_bits=40)) == [(1, 2, 0)]


def test_pairs_of_raw_bytes_and_of_hex_text(load_pair):
    written, read = bytes([0xFF, 0x0F, 0x00, 0xA5]), bytes([0xFE, 0x0F, 0x80, 0xA5])
    texts = (data.hex().encode() + b"\n" for data in (written, read))
    for pair in ((written, read), tuple(texts)):
        dump = load_pair(*pair)
        assert found(dump) == [(0, 0, Kind.STUCK_AT_0), (2, 7, Kind.STUCK_AT_1)]
        assert (dump.held_1, dump.held_0, dump.cells) == (16, 16, 32)
    wide = load_pair(written, read, row_bits=16)
    assert found(wide) == [(0, 0, Kind.STUCK_AT_0), (1, 7, Kind.STUCK_AT_1)]
    assert load_pair(b"\xff", b"\xfe").observable == (Kind.STUCK_AT_0,)
    assert load_pair(b"\0", b"\1").observable == (Kind.STUCK_AT_1,)


def test_bytes_that_look_like_hex_text_are_bytes_if_said_so(load_pair):
    assert found(load_pair(b"ff", b"fe", format="binary_pair")) == [(1, 0, 2), (1, 1, 1)]
    assert found(load_pair(b"ff", b"fe", format="hex_pair")) == [(0, 0, 1)]


def test_operating_points_in_the_name(tmp_path):
    assert parse_dump("a.bin@voltage_v=0.53,temperature_c=25") == ("a.bin", {"voltage_v": 0.53, "temperature_c": 25.0})
    assert parse_dump("w.bin:r.bin@voltage_v=0.5") == ("w.bin:r.bin", {"voltage_v": 0.5})
    assert parse_dump("a.bin") == ("a.bin", {})
    odd = tmp_path / "a@b=c"
    odd.write_bytes(b"")
    assert parse_dump(str(odd)) == (str(odd), {})
    with pytest.raises(ModelError, match="not an operating point"):
        parse_dump("a.bin@voltage_v=low")


def wrong_digit():
    content = bytearray(hex_dump(CELLS)[:4096] + b"\n" + hex_dump(CELLS)[:4096])
    content[4097 + 9] = ord("G")
    return bytes(content)


def doubled_not():
    content = bytearray(hex_dump(CELLS))
    content[4096 + 8 * 4] = ord("7")
    return bytes(content)


def huge_npz():
    file = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("address.npy", header.getvalue())
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        (wrong_digit(), {}, "line 2, column 10: 'G', expected a hexadecimal digit"),
        (hex_dump(CELLS)[:-4], {}, "12284 hexadecimal digits, expected a multiple of 4096"),
        (b"", {"format": "kc705"}, "0 hexadecimal digits"),
        (doubled_not(), {}, "word 8 of block 1 is 7FFF, but"),
        (hex_dump(CELLS), {"rows": 1024}, "a memory of 3072 rows, expected 1024"),
        (hex_dump(CELLS), {"row_bits": 16}, "a memory of 8 bits a row, expected 16"),
        (b"\x00\x01\x02", {}, "not a dump that hwfault knows"),
        (b"", {}, "not a dump that hwfault knows"),
        ("address,bit\n1,2\n", {}, "give --rows and --row-bits"),
        (CSV.replace("flip", "flop"), {}, "line 3, column 5: the kind 'flop': did you mean 'flip'"),
        (CSV.replace("0x0A", "ten"), {}, "line 4, column 1: 'ten' as address"),
        (CSV.replace(" 0 ", "-1"), {}, "line 4, column 6: '-1' as bit"),
        (CSV.replace("7,1,1", "7,1"), {}, "line 5: 2 values, expected 3"),
        (CSV.replace("7,1,1", "16,1,1"), {}, "the address 16, expected 0 to 15"),
        (CSV.replace("kind", "kinds"), {}, "unknown column 'kinds': did you mean 'kind'"),
        (CSV.replace("bit,kind", "kind"), {}, "the columns address, kind, expected address, bit and kind"),
        ("# rows=1\n", {}, "no header, expected the line address,bit,kind"),
        (CSV.encode().replace(b"flip", b"fl\xffip"), {}, "line 3, column 7: not UTF-8 text"),
        (npz(bit=[1]), {}, "no array 'address'"),
        (npz(address=[1.5], bit=[1]), {}, "the array address holds float64"),
        (npz(address=np.array([{}]), bit=[1]), {}, "address is object, expected numbers"),
        (npz(address=[1, 2], bit=[1]), {}, "expected one length"),
        (npz(address=[1], bit=[9]), {"rows": 2, "row_bits": 8}, "the bit 9, expected 0 to 7"),
        (huge_npz(), {}, "address has shape (1099511627776,) of int64 by its header"),
        (b"PK\x03\x04 no archive", {}, "not a readable .npy or .npz file"),
        (b"PK", {"format": "pair"}, "one file, expected a pair"),
    ],
)
def test_refusals(load, content, settings, words):
    with pytest.raises(FileError) as refused:
        load(content, **settings)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("written", "read", "settings", "words"),
    [
        (b"\xff\xff", b"\xff", {}, "2 bytes were written and 1 read"),
        (b"\xff\xff", b"\xff\xff", {"row_bits": 5}, "16 cells, expected a whole number of rows of 5 bits"),
        (b"", b"", {}, "0 cells"),
        (b"fff", b"fff", {}, "3 hexadecimal digits, expected two for each byte"),
        (b"ff\nfg", b"ff\nff", {"format": "hex_pair"}, "line 2, column 2: 'g'"),
        (CSV.encode(), CSV.encode(), {"format": "csv"}, "a pair of files, expected one file for the format 'csv'"),
    ],
)
def test_refused_pairs(load_pair, written, read, settings, words):
    with pytest.raises(FileError) as refused:
        load_pair(written, read, **settings)
    assert words in str(refused.value)


def test_files_that_are_missing_or_too_large(tmp_path, monkeypatch):
    with pytest.raises(FileError, match="cannot be read"):
        load_dump(tmp_path / "none")
    (tmp_path / "dump").write_bytes(b"FF")
    monkeypatch.setattr("hwfault.devices.dumps._LARGEST_FILE", 1)
    with pytest.raises(FileError, match="2 bytes, expected a dump of a memory of at most 1"):
        load_dump(tmp_path / "dump")


def test_an_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(ModelError, match="did you mean 'kc705'"):
        load_dump(tmp_path / "dump", format="kc75")
    assert "kc705" in FORMATS
