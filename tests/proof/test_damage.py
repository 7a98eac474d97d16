"""Bundles that somebody damaged and hashed anew: one clear error, a difference, or the very same meaning."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from hwfault.errors import HwfaultError
from hwfault.injection.attach import inject
from hwfault.proof.check import check
from hwfault.proof.manifest import CLEAN, INPUTS, MANIFEST, PLAN
from hwfault.proof.page import page
from tests.helpers.graph.networks import network, plan
from tests.helpers.graph.running import by_pytorch
from tests.helpers.proof.bundles import opened, rewritten, with_tensors

SEED = "seed-1.safetensors"
FILES = (CLEAN, INPUTS, PLAN, SEED)

LIKELY = b"0123456789{}[],:abz-.e "  # what leaves JSON readable more often than any byte does
byte = st.sampled_from(LIKELY) | st.integers(0, 255)
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), byte), min_size=1, max_size=4)


def damaged(content, change, head):
    """Some bytes changed, where they lie in the first `head` of the content: there the structure is."""
    out = bytearray(content)
    for where, value in change:
        out[int(where * min(len(out), head))] = value
    return bytes(out)


@pytest.mark.every(2)
@pytest.mark.parametrize("name", FILES)
@given(change=changes, head=st.sampled_from([64, 2000, 1 << 30]))
@settings(max_examples=25)
def test_damaged_files_pass_only_if_they_mean_the_same(whole, tmp_path_factory, name, change, head):
    folder = tmp_path_factory.mktemp("damaged") / "b"
    shutil.copytree(whole, folder)
    content = damaged((whole / name).read_bytes(), change, head)
    try:
        rewritten(folder, name, content)
        report = check(opened(folder), seeds=[1])
        page(report)
    except HwfaultError:
        return
    finally:
        shutil.rmtree(folder)
    if report.verdict == "pass":
        assert same_meaning(name, content, whole)


def same_meaning(name, content, whole):
    """Whether a file's content says what it said, or, for samples, makes PyTorch answer as was recorded."""
    if name == PLAN:
        return json.loads(content) == json.loads((whole / PLAN).read_bytes())
    found, good = load(content), load((whole / name).read_bytes())
    if name != INPUTS:
        return found.keys() == good.keys() and all(same_numbers(found[key], good[key]) for key in good)
    model, x = network("formats"), torch.from_numpy(found["input"])
    clean, faulty = (load((whole / file).read_bytes())["output"] for file in (CLEAN, SEED))
    with inject(model, plan("formats"), seed=1):
        under_faults = by_pytorch(model, x)
    return np.array_equal(by_pytorch(model, x), clean) and np.array_equal(under_faults, faulty)


def same_numbers(one, other):
    return np.array_equal(one.ravel(), other.ravel())


def nudged(values):
    """The least change of the last number."""
    out = values.copy()
    last = out.reshape(-1)[-1:]
    last[:] = last ^ 1 if out.dtype.kind in "iu" else np.nextafter(last, np.float32(np.inf))
    return out


@pytest.mark.every(2)
@pytest.mark.parametrize("which", ["clean", "faulty"])
def test_the_least_change_of_any_recorded_number_is_noticed(mine, which):
    """Of codes, scales, zero points, outputs and classes, and of each seed's faults."""
    file = CLEAN if which == "clean" else SEED
    good = (mine / file).read_bytes()
    names = load(good).keys()
    assert len(names) > 12
    for name in names:
        with_tensors(mine, file, lambda tensors, name=name: tensors.update({name: nudged(tensors[name])}))
        try:
            verdict = check(opened(mine), seeds=[1], which=which).verdict
        except HwfaultError:
            verdict = "refused"
        assert verdict != "pass", name
        rewritten(mine, file, good)


@given(change=changes)
@settings(max_examples=100)
def test_damaged_manifests_pass_only_if_they_mean_the_same(whole, tmp_path_factory, change):
    folder = tmp_path_factory.mktemp("damaged") / "b"
    shutil.copytree(whole, folder)
    good = (whole / MANIFEST).read_bytes()
    content = damaged(good, change, 1 << 30)
    try:
        (folder / MANIFEST).write_bytes(content)
        report = check(opened(folder), seeds=[1])
    except HwfaultError:
        return
    finally:
        shutil.rmtree(folder)
    if report.verdict == "pass":
        assert checkable(json.loads(content)) == checkable(json.loads(good))


@pytest.mark.parametrize(("field", "value"), [("bit_width", 7), ("signed", True), ("kind", "input")])
def test_a_manifest_that_tells_of_another_site(mine, field, value):
    """Also in a clean run, where no plan says what the site is: the codes of 4 bits are codes of 7 bits as well."""
    manifest = json.loads((mine / MANIFEST).read_bytes())
    site = next(entry["site"] for entry in manifest["sites"] if entry["site"]["name"] == "2.act_quant")
    assert site[field] != value
    site[field] = value
    (mine / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(HwfaultError, match=r"'2\.act_quant' was recorded as .* but the graph has there activation of"):
        check(opened(mine), which="clean")


def checkable(manifest):
    """What a check can find wrong: all but the names of the versions and layers that it was recorded with."""
    sites = [
        {key: value for key, value in entry["site"].items() if key not in ("layer", "shape")}
        | {"calls": entry["calls"]}
        for entry in manifest["sites"]
    ]
    return {key: value for key, value in manifest.items() if key != "versions"} | {"sites": sites}
