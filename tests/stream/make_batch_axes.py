"""Makes batch_axes.json: where each word of a tensor is numbered, by the rule of docs/fault-stream.md, section 1.

Written from that page alone, with integers: row r of the batch axis belongs to sample (r div inner) mod B, and a
sample's words are counted in C order of the tensor with the sample's index taken out. Run it to write the file anew.
"""

import json
from itertools import product
from pathlib import Path

CASES = [  # (shape, axis, inner, rows)
    ((3, 4), 0, 1, 1),
    ((5, 2, 3), 1, 1, 1),
    ((2, 3, 4, 3), 3, 1, 1),
    ((6, 2), 0, 2, 2),
    ((6, 2), 0, 1, 2),
    ((12, 3), 0, 2, 4),
    ((2, 12), 1, 3, 6),
    ((24, 2), 0, 1, 8),
    ((2, 20, 2), 1, 2, 4),
    ((7,), 0, 1, 1),
    ((3, 0, 2), 0, 1, 1),
]


def numbered(shape, axis, inner, rows):
    """(sample, word) of each element, in C order of the tensor."""
    samples = shape[axis] // rows
    counted = [0] * samples
    found = []
    for index in product(*map(range, shape)):
        sample = index[axis] // inner % samples
        found.append([sample, counted[sample]])  # C order of all is C order of each sample's own
        counted[sample] += 1
    return found


if __name__ == "__main__":
    cases = [
        {"shape": shape, "axis": axis, "inner": inner, "rows": rows, "words": numbered(shape, axis, inner, rows)}
        for shape, axis, inner, rows in CASES
    ]
    about = "words: [sample, word] of each element of the tensor, in C order; made by make_batch_axes.py"
    text = json.dumps({"spec": "fault-stream v1.1", "about": about, "cases": cases}, separators=(",", ":"))
    Path(__file__).with_name("batch_axes.json").write_text(text + "\n")
