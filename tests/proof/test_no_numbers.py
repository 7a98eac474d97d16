"""Bundles of networks in which values are no numbers: recorded as they are, struck by nothing, and found again."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat
from torch import nn

from hwfault.errors import FileError
from hwfault.graph.export.of_network import export
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.check import check
from hwfault.proof.record import write_bundle
from hwfault.proof.replay import replay
from tests.helpers.proof.bundles import opened, with_tensors

PLACES = ((0, 3, np.nan), (2, 5, np.inf), (2, 6, -np.inf))


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    first = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4, return_quant_tensor=True)
    model = nn.Sequential(first, nn.ReLU(), qnn.QuantLinear(20, 4, bias=False))
    x = torch.randn(4, 20)
    model(x)
    for row, word, value in PLACES:
        x[row, word] = value
    model.eval()
    return model, x, resolve(sites(model), [BitFlips(probability=0.2)])


@pytest.fixture(scope="module")
def bundle(case, tmp_path_factory):
    model, x, plan = case
    path = tmp_path_factory.mktemp("bundle") / "b"
    write_bundle(path, model, x, plan=plan, seeds=(1, 2), batch_size=3)
    return path


def test_the_record_is_found_again(bundle):
    report = check(opened(bundle))
    assert not any(site.codes_differ or site.faults_differ for run in report.runs for site in run.sites)
    assert all(site.faults_seen > 10 for run in report.runs if run.seed is not None for site in run.sites)


def test_a_record_without_them_differs(bundle, tmp_path):
    import shutil

    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)

    def forget(tensors):
        for name in [name for name in tensors if "no_numbers" in name]:
            del tensors[name]

    with_tensors(folder, "seed-1.safetensors", forget)
    found = check(opened(folder), seeds=[1], which="faulty").runs[0].sites
    assert max(site.codes_differ for site in found) == 1, "the NaN: infinities are clamped to integers"


def test_damaged_places_are_refused(bundle, tmp_path):
    import shutil

    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)

    def damage(tensors):
        (name,) = [name for name in tensors if name.endswith("no_numbers")]
        tensors[name] = np.ones_like(tensors[name])

    with_tensors(folder, "seed-1.safetensors", damage)
    with pytest.raises(FileError, match="not places and values that are not finite"):
        check(opened(folder), seeds=[1], which="faulty")


def test_a_runner_that_answers_no_number_where_one_was_differs(bundle):
    names = [entry.site.name for entry in opened(bundle).manifest.sites]
    site = next(name for name in names if "act_quant" in name)

    def runner(arrays):
        values = np.full((len(arrays["input"]), 20), np.nan, np.float32)
        return {site: values}

    found = check(opened(bundle), seeds=[1], which="faulty", runner=runner).runs[0].sites[0]
    assert found.codes_differ == 4 * 20 - 1


def test_replay_counts_them(case):
    model, x, plan = case
    report = replay(model, export(model, torch.randn(4, 20), plan=plan), [x], seeds=[1, 2])
    assert {site.name: site.no_numbers for site in report.sites if site.no_numbers} == {"0.act_quant": 2}
    assert not any(site.codes_differ or site.faults_differ for site in report.sites)
