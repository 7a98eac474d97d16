"""Bundles on the disk: written whole or not at all, and damaged or hostile ones refused in a sentence."""

import json
import os
import stat
import zipfile

import pytest

from hwfault.errors import FileError, ModelError
from hwfault.laws.models import ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.profiles.profile import Profile
from hwfault.proof.manifest import CLEAN, LARGEST, MANIFEST, PLAN, Manifest
from hwfault.proof.storage import Bundle, write
from tests.helpers.graph.networks import network
from tests.helpers.proof.bundles import opened, with_manifest, written, zipped


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_bundles_are_equal_to_the_byte(whole, tmp_path):
    again, archive, twice = (written(tmp_path / name) for name in ("again", "a.zip", "b.zip"))
    assert everything(again) == everything(whole)
    assert archive.read_bytes() == twice.read_bytes()
    with zipfile.ZipFile(archive) as members:
        assert {name: members.read(name) for name in members.namelist()} == everything(whole)
    assert opened(archive).digest == opened(whole).digest


def test_every_file_is_listed_with_its_size_and_hash(whole):
    manifest = opened(whole).manifest
    assert set(manifest.files) == set(everything(whole)) - {MANIFEST}
    assert opened(whole).read(PLAN) == (whole / PLAN).read_bytes()
    assert stat.S_IMODE(os.stat(whole).st_mode) == 0o777 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_profiles_of_a_plan_go_along(tmp_path):
    name = "sram14-ibm-7points"
    faults = resolve(sites(network("formats")), [ProfileFaults(profile=name, at={"operating_point": 0})])
    folder = written(tmp_path / "b", faults=faults)
    place = opened(folder).manifest.profiles[name]
    assert Profile.load(folder / place).name == Profile.load(name).name


def test_a_bundle_takes_the_place_of_an_older_one_only(tmp_path):
    folder = written(tmp_path / "b")
    (folder / "notes.txt").write_text("old")
    written(tmp_path / "b", seeds=(9,))
    assert opened(folder).manifest.seeds == (9,)
    assert not (folder / "notes.txt").exists()
    (tmp_path / "empty").mkdir()
    written(tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileError, match="is there already and is no bundle"):
        written(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "empty", "mine"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_disk_that_fails_leaves_the_old_bundle(tmp_path, monkeypatch, exchanges):
    folder = written(tmp_path / "b")
    before, honest = everything(folder), os.replace

    def fails(source, target):
        if str(source).endswith("new"):
            raise OSError(28, "No space left on device")
        honest(source, target)

    monkeypatch.setattr(os, "replace", fails)
    monkeypatch.setattr("hwfault.folders.exchange", fails if exchanges else lambda *_: False)
    with pytest.raises(FileError, match="No space left on device"):
        written(tmp_path / "b", seeds=(9,))
    assert everything(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def _resized(name):
    return lambda manifest: manifest["files"][name].update(bytes=1)


def _named(name):
    return lambda manifest: manifest["files"].update({name: {"bytes": 3, "sha256": "0" * 64}})


def _set(key, value):
    return lambda manifest: manifest.update({key: value})


MANIFESTS = {
    "size": (_resized(CLEAN), "by manifest.json; get the bundle anew"),
    "slip": (_named("../../etc/passwd"), "is no name of a file in a bundle"),
    "absolute": (_named("/etc/passwd"), "is no name of a file in a bundle"),
    "hidden": (_named(".bashrc"), "is no name of a file in a bundle"),
    "itself": (_named(MANIFEST), "is no name of a file in a bundle"),
    "missing": (_named("other.bin"), "other.bin"),
    "version": (_set("format", "hwfault-bundle/2"), "not a bundle of this version"),
    "unknown key": (_set("colour", "red"), "unknown key 'colour'"),
    "no samples": (_set("samples", 0), "samples"),
    "seeds twice": (_set("seeds", [1, 1]), "each once"),
    "seed without file": (_set("seeds", [1, 2]), "'seed-2.safetensors' is not listed"),
    "seeds without a plan": (lambda manifest: manifest.pop("plan_sha256"), "where there is a plan"),
    "sites twice": (lambda m: m["sites"].append(m["sites"][0]), "a site is listed twice"),
    "too large": (lambda m: m["files"]["plan.json"].update(bytes=LARGEST), "expected at most"),
    "list": (lambda manifest: manifest.update(files=[]), "files"),
}


@pytest.mark.parametrize("what", MANIFESTS)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_manifests_that_are_wrong(mine, tmp_path, what, kind):
    change, words = MANIFESTS[what]
    with_manifest(mine, change)
    with pytest.raises(FileError, match=words):
        opened(mine if kind == "folder" else zipped(mine, tmp_path / "b.zip"))


NONE = {
    "empty": b"",
    "open": b"{",
    "list": b"[]",
    "number": b"3",
    "no text": b"\xff\xfe",
    "deep": b'{"format": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("what", NONE)
def test_manifests_that_are_none(mine, what):
    (mine / MANIFEST).write_bytes(NONE[what])
    with pytest.raises(FileError, match="not a bundle"):
        opened(mine)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_changed_byte_is_noticed_in_every_file(mine, tmp_path, kind):
    for path in sorted(mine.rglob("*")):
        if path.name != MANIFEST and path.is_file():
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(FileError, match=f"{path.name} does not have the SHA-256"):
                opened(mine if kind == "folder" else zipped(mine, tmp_path / "b.zip"))
            path.write_bytes(content)
    assert opened(mine).digest


def test_a_file_that_grew_is_not_read(mine):
    with open(mine / CLEAN, "ab") as file:
        file.truncate(1 << 40)  # sparse: reading it would take the machine's memory
    with pytest.raises(FileError, match="has 1099511627776 bytes"):
        opened(mine)
    with open(mine / MANIFEST, "ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="expected at most 16777216"):
        opened(mine)


def test_files_that_are_no_files(mine, tmp_path):
    content = (mine / CLEAN).read_bytes()
    (mine / CLEAN).unlink()
    with pytest.raises(FileError, match=r"clean\.safetensors cannot be read"):
        opened(mine)
    os.mkfifo(mine / CLEAN)
    with pytest.raises(FileError, match="is no regular file"):
        opened(mine)
    (mine / CLEAN).unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    (mine / CLEAN).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="cannot be read"):
        opened(mine)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1, -30])
def test_a_zip_that_is_cut_short(mine, tmp_path, keep):
    archive = zipped(mine, tmp_path / "b.zip")
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(FileError, match=r"not a whole \.zip file"):
        opened(archive)


def test_a_zip_whose_content_is_damaged(mine, tmp_path):
    archive = zipped(mine, tmp_path / "b.zip")
    content = bytearray(archive.read_bytes())
    at = content.index((mine / CLEAN).read_bytes()[:50])
    content[at + 10] ^= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(FileError, match=r"not a whole \.zip file"):
        opened(archive)


def test_a_zip_with_a_name_twice(mine, tmp_path):
    archive = zipped(mine, tmp_path / "b.zip")
    with zipfile.ZipFile(archive, "a") as members, pytest.warns(UserWarning, match="Duplicate name"):
        members.writestr(CLEAN, b"another")
    with pytest.raises(FileError, match=r"holds clean.safetensors 2 times"):
        opened(archive)


def test_nothing_is_extracted_from_a_zip(mine, tmp_path):
    archive = zipped(mine, tmp_path / "b.zip")
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr("../slipped.txt", b"out")
    before = sorted(tmp_path.rglob("*"))
    opened(archive)
    assert sorted(tmp_path.rglob("*")) == before


def test_paths_that_are_no_bundles(tmp_path):
    with pytest.raises(FileError, match="there is no such file or folder; expected a bundle"):
        opened(tmp_path / "none")
    with pytest.raises(FileError, match=r"manifest\.json cannot be read"):
        opened(tmp_path)


def test_tensors_that_are_none(mine):
    from tests.helpers.proof.bundles import rewritten

    for content in (b"", b"abc", b"\xff" * 64, (1 << 62).to_bytes(8, "little") + b"{}"):
        rewritten(mine, CLEAN, content)
        with pytest.raises(FileError, match=r"clean.safetensors is no .safetensors file of numbers"):
            opened(mine).tensors(CLEAN)


def test_a_manifest_says_what_is_wrong_with_it():
    with pytest.raises(ModelError, match=r"'clean\.onnx' is not listed"):
        Manifest(versions={}, samples=1, batch_size=1, sites=(), files={})


def test_a_manifest_goes_to_json_and_back(whole):
    manifest = opened(whole).manifest
    assert Manifest.parse(json.loads(manifest.model_dump_json()), "m") == manifest
    assert Bundle(whole, manifest, "").read(PLAN)


def test_a_place_that_cannot_be_written(whole, tmp_path):
    manifest = opened(whole).manifest
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "no" / "such" / "folder", manifest, {})
