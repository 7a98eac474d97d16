"""The files that ship as examples: the tutorial from end to end, and configurations that fit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hwfault.laws.models import load_faults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train import TrainConfig
from hwfault.train.networks import build

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_faults_fit_the_configuration():
    config = TrainConfig.load(EXAMPLES / "train.yaml")
    network = build(config.network, seed=config.seed, **config.network_args)
    assert resolve(sites(network), [fault.fault for fault in config.faults]).sites
    plan = resolve(sites(network), load_faults(EXAMPLES / "faults.yaml"))
    assert {"features.0.weight_quant", "features.1.act_quant"} <= set(plan.names)


@pytest.mark.slow
def test_the_tutorial_from_end_to_end(tmp_path):
    for name in ("my_network.py", "tutorial.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "tutorial.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained under faults, bit error rate 0.01: " in done.stdout
    assert "0 of 64 predictions differ" in done.stdout
    assert (tmp_path / "replay.html").is_file()
    assert (tmp_path / "study" / "report.html").is_file()
