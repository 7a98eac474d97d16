"""Tables of cells: what they say, from records or from a CSV file, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import FileError, ModelError
from hwfault.laws.cell_table import LARGEST_TABLE, read_table
from hwfault.laws.cells import CellFaults
from hwfault.laws.models import load_faults, named_faults
from hwfault.plan.fault_plan import FaultPlan, resolve
from tests.helpers.laws.cell_cases import SITES, cell, plan_of


def table(text, folder):
    path = folder / "cells.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


TEXT = """# found on the bench
site, word, bit, kind, sample, step

act, 3, 1, stuck_1, 7,
"act", 4, 0, flip,,
w, 5, 3, stuck_0,,2
"""
SAME = [cell(word=3, bit=1, kind="stuck_1", sample=7), cell(word=4), cell("w", 5, 3, "stuck_0", step=2)]


def test_a_file_is_the_same_as_a_list(tmp_path):
    path = table(TEXT, tmp_path)
    for fault in (CellFaults(file=path), *named_faults(f"cells:{path}")):
        plan = resolve(SITES, [fault])
        assert plan.sites == plan_of(*SAME).sites
        assert len(plan.faults[0].digest) == 64
        assert FaultPlan.from_json(plan.to_json()) == plan
    assert resolve(SITES, [CellFaults(file=table("bit,kind,word,site\n0,flip,4,act\n", tmp_path))]).names == ("act",)
    marked = table(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(), tmp_path)
    assert resolve(SITES, [CellFaults(file=marked)]).sites == plan_of(*SAME).sites


def test_a_yaml_file_may_hold_or_name_them(tmp_path):
    path = table(TEXT, tmp_path)
    (tmp_path / "f.yaml").write_text(
        f"faults:\n  - {{model: cells, cells: {SAME}}}\n  - {{model: cells, file: {path}}}\n"
    )
    both = load_faults(tmp_path / "f.yaml")
    assert resolve(SITES, both[:1]).sites == resolve(SITES, both[1:]).sites
    told = both[0].describe(), both[1].describe()
    assert told == ("cells cells=3 on act, w", f"cells file={path} on the sites that it names")


def test_a_changed_file_is_told(tmp_path, caplog):
    plan = resolve(SITES, [CellFaults(file=table(TEXT, tmp_path))])
    table(TEXT.replace("7", "8"), tmp_path)
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert "cells.csv: the file has changed since a plan was made of it" in caplog.text


HEADER = "site,word,bit,kind,sample\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no header, expected the line site,word,bit,kind"),
        ("# nothing\n\n", "no header"),
        ("site,word,bit\nact,1,1\n", "line 1: the columns site, word, bit, expected site,word,bit,kind"),
        ("site,word,bit,kind,kind\n", "line 1: the columns .*, each once"),
        ("site,wrod,bit,kind\n", "line 1: unknown column 'wrod': did you mean 'word'"),
        (HEADER + "act,1,1,flip\n", "line 2: 4 values, expected 5 "),
        (HEADER + "act,1,1,flip,,\n", "line 2: 6 values, expected 5"),
        (HEADER + "\nact,-1,1,flip,\n", "line 3: '-1' as word, expected a whole number from 0 on"),
        (HEADER + "act,1,1e3,flip,\n", "line 2: '1e3' as bit"),
        (HEADER + "act,\u0661,1,flip,\n", "line 2: '\u0661' as word"),
        (HEADER + f"act,{'9' * 19},1,flip,\n", "line 2: '9{19}' as word"),
        (HEADER + f"act,{'9' * 1000},1,flip,\n", "line 2: '9{40}' as word"),
        (HEADER + "act,1,1,flop,\n", "line 2: the kind 'flop': did you mean 'flip'"),
        (HEADER + "act,1,1,,\n", "line 2: the kind ''"),
        (HEADER + ",1,1,flip,\n", "line 2: the name of a site has 0 characters, expected 1 to 1000"),
        (HEADER + f"{'a' * 1001},1,1,flip,\n", "line 2: the name of a site has 1001 characters"),
        (HEADER + "act,1,1,flip,-1\n", "line 2: '-1' as sample"),
        (HEADER + f"act,1,1,flip,{2**32}\n", "line 2: 4294967296 as sample, expected 0 to 2.32 - 1"),
        (HEADER.encode() + b"\xff,1,1,flip,\n", "line 2: not UTF-8 text"),
        (HEADER + '"act,1,1,flip,\n', "line 2: unexpected end of data, expected a CSV table"),
        (HEADER + f"{'a' * 200_000},1,1,flip,\n", "line 2: 200011 characters, expected .* lines of at most 4096"),
        (HEADER + "," * 10**6, "line 2: 1000000 characters"),
        (HEADER + '"act\n",1,1,flip,\n', "line 2: unexpected end of data"),
    ],
)
def test_files_that_are_no_table(text, words, tmp_path):
    path = table(text, tmp_path)
    with pytest.raises(FileError, match=f"cells.csv: {words}"):
        resolve(SITES, [CellFaults(file=path)])


def test_a_file_without_cells(tmp_path):
    with pytest.raises(ModelError, match=r"cells\.csv: no cells behind the header, expected at least one"):
        resolve(SITES, [CellFaults(file=table(HEADER, tmp_path))])


def test_a_file_is_measured_before_it_is_read(tmp_path):
    path = tmp_path / "cells.csv"
    with open(path, "wb") as file:
        file.truncate(LARGEST_TABLE + 1)
    with pytest.raises(FileError, match="33554433 bytes, expected a CSV table of cells of at most 33554432"):
        resolve(SITES, [CellFaults(file=str(path))])
    with pytest.raises(FileError, match="cannot be read"):
        resolve(SITES, [CellFaults(file=str(tmp_path / "nowhere.csv"))])


def test_a_file_names_sites_and_not_as_many_as_it_likes():
    lines = "".join(f"s{i},0,0,flip\n" for i in range(2**16 + 1))
    with pytest.raises(FileError, match="t: names 65537 sites, expected at most 65536"):
        read_table(f"site,word,bit,kind\n{lines}".encode(), "t")


@given(st.sampled_from([b"", HEADER.encode()]), st.binary(max_size=80))
def test_any_bytes_are_a_table_or_refused(header, content):
    try:
        found = read_table(header + content, "t")
    except FileError:
        return
    assert len(found.word) == len(found.place)


def test_lines_of_a_file_are_named(tmp_path):
    path = table(HEADER + "\nact,0,0,flip,\nact,99,0,flip,\n", tmp_path)
    with pytest.raises(ModelError, match=r"cells\.csv: line 4: word 99, expected 0 to 20"):
        resolve(SITES, [CellFaults(file=path)])
