"""Bundles that somebody damaged and hashed anew: a report, or one clear error, whatever the bytes are."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.bundle.check import check
from hwfault.bundle.manifest import CLEAN, INPUTS, MANIFEST, PLAN
from hwfault.bundle.page import page
from hwfault.errors import HwfaultError

from .bundles import opened, rewritten

FILES = (CLEAN, INPUTS, PLAN, "seed-1.safetensors")

LIKELY = b"0123456789{}[],:abz-.e "  # what leaves JSON readable more often than any byte does
byte = st.sampled_from(LIKELY) | st.integers(0, 255)
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), byte), min_size=1, max_size=4)


def damaged(content, change, head):
    """Some bytes changed, where they lie in the first `head` of the content: there the structure is."""
    out = bytearray(content)
    for where, value in change:
        out[int(where * min(len(out), head))] = value
    return bytes(out)


@pytest.mark.parametrize("name", FILES)
@given(change=changes, head=st.sampled_from([64, 2000, 1 << 30]))
@settings(max_examples=25)
def test_damaged_files_end_in_a_report_or_an_error(whole, tmp_path_factory, name, change, head):
    folder = tmp_path_factory.mktemp("damaged") / "b"
    shutil.copytree(whole, folder)
    try:
        rewritten(folder, name, damaged((whole / name).read_bytes(), change, head))
        page(check(opened(folder), seeds=[1]))
    except HwfaultError:
        pass
    finally:
        shutil.rmtree(folder)


@given(change=changes)
@settings(max_examples=100)
def test_damaged_manifests_end_in_a_bundle_or_an_error(whole, tmp_path_factory, change):
    folder = tmp_path_factory.mktemp("damaged") / "b"
    shutil.copytree(whole, folder)
    try:
        (folder / MANIFEST).write_bytes(damaged((whole / MANIFEST).read_bytes(), change, 1 << 30))
        check(opened(folder), which="clean")
    except HwfaultError:
        pass
    finally:
        shutil.rmtree(folder)
