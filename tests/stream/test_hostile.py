"""Programs and numbers from a hostile hand: the native library answers with an error, and never crashes.

The calls run in a process of their own, so that a crash is a failed test and not the end of the run.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from hwfault.errors import HwfaultError
from hwfault.stream import native
from tests.helpers.stream.capi import Arguments, RefusedError, call

HUGE = 2**63 - 1


def inject(program, bits=4, words=2000, batch=2):
    codes = np.zeros((batch, words), np.uint32)
    return native.inject_codes(codes, program=program, seed=1, samples=list(range(batch)), bit_width=bits)


@pytest.mark.parametrize(
    ("program", "bits"),
    [
        ((0, 7, 7, 2**22, 2**22, 1, 5, 0, 0, -1), 2),
        ((1, 7, 9, 1, 2, 10, 10, 2, 5, 6, 0, -1), 3),
        ((2, 7, 3, 3, 1, 5), 2),
        ((3, 7, 2, 1, 5), 2),
        ((3, 2**32 - 1, 3, 2, 0, 2**32), 32),
        ((3, 7, 1, 0, 3, 7, 1, -1), 1),
        ((), 4),
    ],
)
def test_programs_like_those_below_that_are_good(program, bits):
    inject(program, bits)


@pytest.mark.parametrize(
    ("program", "bits"),
    [
        ((0,), 4),
        ((3, 7), 4),
        ((3, 7, 2), 4),
        ((3, 7, 2, 1), 4),
        ((3, 7, 3, 1, 5), 4),
        ((3, 7, 1, 1, 5), 4),
        ((3, 7, 3, 1, 5, 9), 4),
        ((3, 7, 0), 4),
        ((3, 7, -1), 4),
        ((3, 7, HUGE, 1, 5), 4),
        ((3, 7, -HUGE - 1, 1, 5), 4),
        ((4, 7, 2, 1, 5), 4),
        ((-1, 7, 2, 1, 5), 4),
        ((HUGE, 7, 2, 1, 5), 4),
        ((3, -1, 2, 1, 5), 4),
        ((3, 2**32, 2, 1, 5), 4),
        ((3, 7, 1, -2), 4),
        ((3, 7, 1, HUGE), 4),
        ((3, 7, 1, -HUGE), 4),
        ((3, 7, 2, HUGE, 5), 4),
        ((3, 7, 2, 2**61, 5), 4),
        ((3, 7, 2, -1, 5), 4),
        ((3, 7, 3, 2, 6, 5), 4),
        ((3, 7, 2, 1, -1), 4),
        ((3, 7, 2, 1, 2**32 + 1), 4),
        ((3, 7, 2, 1, 5, 3), 4),
        ((3, 7, 2, 1, 5, 3, 7, 2), 4),
        ((2, 7, 3, 0, 1, 5), 4),
        ((2, 7, 3, 16, 1, 5), 4),
        ((2, 7, 3, -1, 1, 5), 4),
        ((2, 7, 3, 2**32, 1, 5), 32),
        ((2, 7, 3, 2**32 + 1, 1, 5), 4),
        ((2, 7, 1, 3), 4),
        ((0, 7, 3, 2**22, 2**22, 0), 2),
        ((0, 7, 3, 2**22 + 1, 0, 0), 1),
        ((0, 7, 3, 0, 2**22 + 1, 0), 1),
        ((0, 7, 3, -1, 0, 0), 1),
        ((0, 7, 3, 0, -1, 0), 1),
        ((0, 7, 6, 0, 0, 0, 0, 0, 0), 1),
        ((1, 7, 3, 2, 0, 0), 1),
        ((1, 7, 3, -1, 0, 0), 1),
        ((1, 7, 3, 0, -1, 0), 1),
        ((1, 7, 3, 0, 5, 0), 1),
        ((1, 7, 3, 0, HUGE, 0), 1),
        ((1, 7, 5, 0, 2, 6, 5, 0), 1),
        ((1, 7, 4, 0, 1, 2**22 + 1, 0), 1),
        ((1, 7, 4, 0, 1, -1, 0), 1),
        ((1, 7, 2, 0, 0), 1),
        ((), 0),
        ((), 33),
        ((), -1),
        ((3, 7, 2, 1, 5), 2**31 - 1),
    ],
)
def test_broken_programs_are_refused(program, bits):
    with pytest.raises(HwfaultError, match=r"expected|ends|left over"):
        inject(program, bits)


@pytest.mark.parametrize(
    ("program", "bits"),
    [
        ((0, 7, 8, 2**22, 2**22, 1, 5, 0, 0, 1, 6), 2),
        ((1, 7, 9, 1, 2, 10, 10, 2, 5, 6, 0, -1), 3),
        ((2, 7, 3, 3, 1, 5), 2),
        ((3, 7, 3, 2, 5, 6), 2),
    ],
)
def test_nothing_is_read_past_the_programs_end(program, bits):
    # what follows in memory would make the program whole
    codes = np.zeros((1, 2000), np.uint32)
    given = Arguments(program, 1, [0], 2000)
    call("inject_codes", codes, given.draw, bits)
    for length in range(1, len(program)):
        given._draw.program_length = length
        with pytest.raises(RefusedError, match=r"the fault program ends|a count table's length"):
            call("inject_codes", codes, given.draw, bits)


def test_samples_that_are_not_one_a_row():
    for samples in ([], [1], [1, 2, 3], [[1, 2]]):
        with pytest.raises(HwfaultError, match=r"sample numbers for codes of shape \(2, 3\), expected one a row"):
            native.inject_codes(np.zeros((2, 3), np.uint32), program=(), seed=1, samples=samples, bit_width=4)


FUZZ = """
import numpy as np
from hwfault.errors import HwfaultError
from hwfault.stream import native
from tests.helpers.stream.cases import Draw

draw = Draw(1)
strange = (0, 1, -1, -2, 2, 3, 4, 31, 33, 2**22, 2**22 + 1, 2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1, -2**63)
good = refused = 0
for _ in range(6000):
    case = draw.case()
    program = list(case.program) or [3, 1, 2, 1, 5]
    for _ in range(draw.integer(1, 3)):
        way, at = draw.integer(0, 4), draw.integer(0, len(program) - 1) if program else 0
        if way == 0 and program:
            program[at] = draw.one_of(strange)
        elif way == 1:
            del program[at : at + draw.integer(1, 5)]
        elif way == 2:
            program.insert(at, draw.one_of(strange))
        elif way == 3:
            program += [draw.one_of(strange) for _ in range(draw.integer(1, 4))]
        elif program:
            program[at] += draw.one_of((-1, 1))
    bits = draw.one_of((case.bit_width, case.bit_width, 1, 32, 0, 33))
    try:
        after = native.inject_codes(case.codes[None], program=program, seed=case.seed, samples=[3], bit_width=bits)
        assert bits == 32 or bits < case.bit_width or (after < 2**bits).all()
        good += 1
    except HwfaultError as error:
        assert 10 < len(str(error)) < 300, error
        refused += 1
print(good, refused)
"""

NUMBERS = """
import ctypes
import numpy as np
from hwfault.codes import CodeFormat
from tests.helpers.stream.capi import Arguments, RefusedError, call
from tests.helpers.stream.values import Grid

x, wrong = np.zeros((1, 100), np.float32), 0
HUGE = 2**63 - 1

def attempt(name, *arguments):
    global wrong
    try:
        call(name, *arguments)
    except RefusedError as error:
        assert any(word in str(error) for word in ("expected", "ends", "left over")), error
        wrong += 1
    else:
        print("taken", name, arguments)

def fresh():
    return Arguments((3, 7, 1, -1), 1, [0], 100, Grid(CodeFormat(4, False), np.ones(1), 1, np.zeros(1), 1))

for part, field, values in (
    ("_format", "n_scale", (0, -1, -HUGE)),
    ("_format", "scale_inner", (0, -1)),
    ("_format", "n_zero_point", (0, -1)),
    ("_format", "zero_point_inner", (0, -1)),
    ("_format", "bit_width", (0, -1, 33, 2**31 - 1)),
    ("_format", "scale", (None,)),
    ("_format", "zero_point", (None,)),
    ("_draw", "batch", (-1, -HUGE)),
    ("_draw", "words", (-1, 2**36 + 1, HUGE)),
    ("_draw", "program_length", (-1, -HUGE)),
):
    for value in values:
        given = fresh()
        setattr(getattr(given, part), field, value)
        attempt("inject", 0, x, x.copy(), given.draw, given.format, 1)
        attempt("zero_faulty", 0, x, x.copy(), x, given.draw, given.format, 1)
        attempt("faulty_words", 0, x, given.draw, given.format, 0, None, None, None)
        if part == "_draw":
            attempt("inject_codes", np.zeros((1, 100), np.uint32), given.draw, 4)
given = fresh()
for dtype in (-1, 4, 2**31 - 1):
    attempt("inject", dtype, x, x.copy(), given.draw, given.format, 1)
    attempt("zero_faulty", dtype, x, x.copy(), x, given.draw, given.format, 1)
    attempt("faulty_words", dtype, x, given.draw, given.format, 0, None, None, None)
table = np.array([1, 5, 9], np.int64)
for plane in (-1, 32, 62, 64, 2**31 - 1):
    attempt("hits", 1, 2, 3, 100, plane, table, 2, 0, None, None)
for words in (-1, 2**36 + 1, HUGE):
    attempt("hits", 1, 2, 3, words, 0, table, 2, 0, None, None)
for length in (0, 1, 3, -1, -HUGE):
    attempt("hits", 1, 2, 3, 100, 0, table, length, 0, None, None)
print("refused", wrong)
"""


def in_a_process_of_its_own(code):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONFAULTHANDLER": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, (run.returncode, run.stderr[-3000:])
    return run.stdout


def test_programs_broken_at_random():
    good, refused = map(int, in_a_process_of_its_own(FUZZ).split())
    assert good > 100
    assert refused > 3000


def test_numbers_out_of_range():
    out = in_a_process_of_its_own(NUMBERS)
    assert "taken" not in out, out
    assert int(out.split()[-1]) > 70
