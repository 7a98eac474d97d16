"""Known answers of version 1.1 from exact fractions, independent of every engine: writes vectors_1_1.json."""

import json
import math
from fractions import Fraction
from pathlib import Path

# significant bits, least exponent of a normal number, largest finite number
TYPES = {
    "float32": (24, -126, (2 - Fraction(1, 2**23)) * 2**127),
    "float64": (53, -1022, (2 - Fraction(1, 2**52)) * 2**1023),
    "float16": (11, -14, Fraction(65504)),
    "bfloat16": (8, -126, (2 - Fraction(1, 2**7)) * 2**127),
}


def rounded(x, kind):
    """The number of a type nearest to a fraction, ties to even; none of them here is too large or too small."""
    bits, least, largest = TYPES[kind]
    if x == 0:
        return Fraction(0)
    exponent = max(math.floor(math.log2(abs(x))) - 2, least)
    while abs(x) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - bits + 1)
    result = round(x / unit) * unit  # Python rounds halves to even, and fractions exactly
    assert abs(result) <= largest
    return result


def steps(value, scale, zero_point, kind):
    """The integer that is nearest to a value's: one division and one addition, each rounded."""
    wide = "float64" if kind == "float64" else "float32"
    return round(rounded(rounded(value / scale, wide) + zero_point, wide))


def worth(q, scale, zero_point, kind):
    wide = "float64" if kind == "float64" else "float32"
    product = rounded(rounded(rounded(Fraction(q), wide) - zero_point, wide) * scale, wide)
    return rounded(product, kind)


def limits(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def code_of(q, bits, signed, kind):
    if bits == 1 and signed:
        return int(q > 0)
    low, high = limits(bits, signed)
    if kind in ("float16", "bfloat16"):
        q = min(max(q, low), high)
    return q % 2**bits


def integer_of(code, bits, signed):
    if bits == 1 and signed:
        return 2 * code - 1
    return code - 2**bits if signed and code >> (bits - 1) else code


def case(about, kind, bits, signed, scale, zero_point, mask, values):
    """Every word is hit, and the bits of the mask flipped."""
    scale, zero_point = rounded(Fraction(scale), "float32"), rounded(Fraction(zero_point), "float32")
    codes, after = [], []
    for value in values:
        if isinstance(value, str):  # no number: it stays
            codes.append(0)
            after.append(value)
            continue
        code = code_of(steps(Fraction(value), scale, zero_point, kind), bits, signed, kind)
        codes.append(code)
        after.append(float(worth(integer_of(code ^ mask, bits, signed), scale, zero_point, kind)))
    grid = {"scale": float(scale), "zero_point": float(zero_point)}
    word = {"type": kind, "bit_width": bits, "signed": signed}
    return {"about": about, **word, **grid, "mask": mask, "values": values, "codes": codes, "after": after}


def on_grid(qs, scale, zero_point, kind):
    s, z = rounded(Fraction(scale), "float32"), rounded(Fraction(zero_point), "float32")
    return [float(worth(q, s, z, kind)) for q in qs]


def cases():
    some = [0, 1, 2, 15, 16, 127, 128, 200, 254, 255]
    for kind in ("float32", "float64"):
        for zero_point in (0.5, 127.3125, 100.49999, -3.75):
            values = on_grid(some, 0.0123, zero_point, kind)
            yield case("a zero point that is no integer", kind, 8, False, 0.0123, zero_point, 16, values)
        ties = [0.5, 1.5, 2.5, -0.5, -1.5, 3.5]
        yield case("ties are of the sum: to even with an even zero point", kind, 4, True, 1.0, 2.0, 1, ties)
        yield case("ties are of the sum: to even with an odd one", kind, 4, True, 1.0, 1.0, 1, ties)
    numbers = ["nan", 0.5, "inf", "-inf", -1.0, "nan", 0.0]
    for kind in TYPES:
        yield case("what is not finite stays", kind, 4, True, 0.5, 0.0, 15, numbers)
        yield case("the same of one bit", kind, 1, True, 0.5, 0.0, 1, ["nan", 0.5, -0.5, "inf"])
    for scale in (0.0002652948605827987, 0.5355666875839233, 2.5514066219329834):
        values = on_grid([0, 1, 100, 128, 255], scale, 0, "bfloat16")
        yield case("255 is held as 256: the end of the range", "bfloat16", 8, False, scale, 0.0, 128, values)
    values = on_grid([0, 2047, 4095], 0.00123, 0, "float16")
    yield case("4095 may be held as 4096", "float16", 12, False, 0.00123, 0.0, 2048, values)
    biases = [0, 1, -1, 5, -6000, 6001, 2**20 - 1, -(2**20)]
    for bit in (0, 7, 24, 30, 31):
        values = on_grid(biases, 4e-5, 0, "float32")
        yield case("words of 32 bits", "float32", 32, True, 4e-5, 0.0, 1 << bit, values)
    values = on_grid([0, 1, 2**31 - 1], 4e-5, 0, "float64")
    yield case("words of 32 bits in float64", "float64", 32, True, 4e-5, 0.0, 2**31 - 1, values)


if __name__ == "__main__":
    about = (
        "Known answers of fault stream 1.1: every word is hit by a mask process (h = 1). Made by make_vectors_1_1.py."
    )
    answers = {"spec": "fault-stream v1.1", "about": about, "cases": list(cases())}
    text = json.dumps(answers, indent=1)
    Path(__file__).with_name("vectors_1_1.json").write_text(text + "\n", encoding="utf-8")
