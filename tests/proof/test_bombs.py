"""Bundles that are larger than they look: linear in their files, and refused before memory is taken."""

import json
import zipfile
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import pytest

from hwfault.errors import FileError
from hwfault.program.processes import Site
from hwfault.proof import storage
from hwfault.proof.expected import Expected
from hwfault.proof.manifest import MANIFEST, MOST_FILES, RecordedSite
from hwfault.proof.storage import Bundle, write
from tests.helpers.proof.bundles import opened, with_manifest, zipped


class Facts(NamedTuple):
    """What a manifest says."""

    samples: int
    batch_size: int
    spec: str
    sites: list[RecordedSite]


def test_a_zip_is_read_once_for_all_of_its_files(mine, tmp_path, monkeypatch):
    names = [f"extra/{i}.bin" for i in range(300)]
    (mine / "extra").mkdir()
    for name in names:
        (mine / name).write_bytes(b"")
    empty = {"bytes": 0, "sha256": sha256(b"").hexdigest()}
    with_manifest(mine, lambda manifest: manifest["files"].update(dict.fromkeys(names, empty)))
    path = zipped(mine, tmp_path / "b.zip")
    read = []
    honest = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda self: (read.append(1), honest(self))[1])
    bundle = opened(path)
    assert all(bundle.read(name) == b"" for name in names)
    assert len(read) == 1


@pytest.fixture
def small(monkeypatch):
    """As if a mebibyte were much."""
    monkeypatch.setattr(storage, "_ROOM", 1 << 16)


def test_a_file_that_unpacks_to_far_more(mine, tmp_path, small):
    content = bytes(1 << 22)
    (mine / "zeros.bin").write_bytes(content)
    entry = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    with_manifest(mine, lambda manifest: manifest["files"].update({"zeros.bin": entry}))
    assert opened(mine).read("zeros.bin") == content
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(mine.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(mine))
    with pytest.raises(FileError, match=r"zeros.bin has \d+ bytes and would unpack to 4194304, expected at most"):
        opened(tmp_path / "b.zip")


def test_what_is_written_can_be_read(mine, tmp_path, small):
    """Content that packs so well is left unpacked."""
    whole = Bundle.open(mine)
    files = {name: whole.read(name) for name in whole.manifest.files} | {"zeros.bin": bytes(1 << 22)}
    manifest = whole.manifest.model_copy(update={"files": storage.describe_files(files)})
    write(tmp_path / "b.zip", manifest, files)
    assert opened(tmp_path / "b.zip").read("zeros.bin") == bytes(1 << 22)
    assert (tmp_path / "b.zip").stat().st_size > 1 << 22


def test_memory_is_that_of_a_piece(mine, monkeypatch):
    sizes = []

    class Counting:
        def __init__(self, file):
            self._file = file

        def read(self, size):
            sizes.append(size)
            return self._file.read(size)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

    monkeypatch.setattr(storage, "_PIECE", 1000)
    honest = storage._Folder.opened
    monkeypatch.setattr(storage._Folder, "opened", lambda self, name, size: Counting(honest(self, name, size)))
    opened(mine)
    assert max(size for size in sizes if size < 1 << 24) == 1000
    assert len(sizes) > 20


def test_a_parameter_is_not_written_out_for_every_batch():
    """Of a million batches of a million words, which a few files of a megabyte say."""
    samples, words = 1 << 20, 1 << 20
    site = Site(name="w", kind="weight", bit_width=8, signed=True, shape=(words,))
    facts = Facts(samples, 1, "fault-stream v1", [RecordedSite(site=site, calls=1)])
    clean = {"w#0.codes": np.zeros((1, words), np.uint8)}
    at = np.array([7, 9, 9], np.uint64) * words + np.array([3, 0, 5], np.uint64)
    own = {"output": np.zeros((samples, 0), np.float32), "prediction": np.zeros(samples, np.uint8)}
    own |= {"w#0.at": at, "w#0.after": np.array([1, 2, 4], np.uint8)}
    expected = Expected(facts, own, clean, "here")
    before, after = expected.codes(site, 0, slice(9, 10))
    assert before.shape == after.shape == (1, words)
    assert after[0, [0, 5]].tolist() == [2, 4]
    assert np.count_nonzero(after) == 2


def test_more_entries_than_files_can_be(mine):
    entry = {"bytes": 0, "sha256": "wrong"}
    with_manifest(mine, lambda m: m["files"].update({f"f{i}": entry for i in range(MOST_FILES)}))
    assert len(json.loads((mine / MANIFEST).read_text())["files"]) > MOST_FILES
    with pytest.raises(FileError, match=r"files: .* entries, expected at most 65536"):
        opened(mine)
