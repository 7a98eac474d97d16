"""Campaigns on a real Ray cluster of two nodes on this machine, of which one goes away half way."""

import sys

import pytest

from hwfault.campaigns.chosen_workers import make_workers
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.driver import Driver
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.nesting.kept import kept_turns
from hwfault.campaigns.workers import Here
from hwfault.errors import HwfaultError
from tests.campaigns.test_studies import write
from tests.campaigns.wide.small import measured, rows_in, write_study

STUDY = {"samples": 400, "questions": {"curve": {"sweep": {"ber": [0.02, 0.05, 0.08]}}}}


def loaded(folder, **given):
    folder.mkdir(exist_ok=True)
    return measured(write_study(folder, stop={"max_trials": 300, "relative": 0.001}, **STUDY, **given))


def test_without_ray_it_is_said_what_to_install(tmp_path, monkeypatch):
    study, measurement = loaded(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        HwfaultError, match=r"needs Ray, which is not installed here; run `pip install 'hwfault\[ray\]'`"
    ):
        make_workers(study, None, measurement, "ray")
    with pytest.raises(HwfaultError, match=r"'rays', expected a number of processes, or a cluster"):
        make_workers(study, None, measurement, "rays")


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head without a place for workers, and of a node with one; more are added by tests."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    grown = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 1 << 27})
    yield grown
    grown.shutdown()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_node_goes_away_and_another_joins(cluster, tmp_path, monkeypatch):
    from hwfault.campaigns.measurement import Trust

    study, measurement = loaded(tmp_path / "study")
    (tmp_path / "here").mkdir()
    with Database(tmp_path / "here" / FILE) as database:
        expected = Driver(measurement, database, Here(measurement)).run()
    going = cluster.add_node(num_cpus=1, object_store_memory=1 << 27)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    workers = make_workers(study, Trust(), measurement, "ray")
    gone = False
    joined = []
    nodes = set()

    def watch(present):
        nonlocal gone
        nodes.update(one.node for one in workers._actors if one.node is not None)
        if not gone and len(nodes) == 2 and present.done >= 40:
            cluster.remove_node(going, allow_graceful=False)
            gone = True
        elif gone and not joined:
            joined.append(cluster.add_node(num_cpus=1, object_store_memory=1 << 27))

    try:
        with Database(tmp_path / FILE) as database:
            figures = Driver(measurement, database, workers, watch).run()
    finally:
        workers.close()
        for node in joined:  # the next test finds the cluster as this one did
            cluster.remove_node(node)
    assert gone
    assert len(joined) == 1
    assert figures == expected
    assert rows_in(tmp_path) == rows_in(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_workers_that_do_not_fit_are_refused(cluster, tmp_path, monkeypatch):
    from hwfault.campaigns.measurement import Trust

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    study, measurement = loaded(tmp_path, ray={"cpus": 1, "gpus": 0.25})
    with pytest.raises(HwfaultError, match=r"no room for a worker of 1 CPUs and 0.25 GPUs; start more nodes"):
        make_workers(study, Trust(), measurement, "ray")
    study, measurement = loaded(tmp_path)
    with pytest.raises(HwfaultError, match=r"no Ray cluster answers at 'ray://127.0.0.1:1'"):
        make_workers(study, Trust(), measurement, "ray://127.0.0.1:1")


STRATA = {
    "questions": {"one": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never"}},
    "stop": {"max_trials": 280, "relative": 0.01},
}
TURNS = {
    "questions": {
        "calm": {"sweep": {"ber": [0.0003, 0.001, 0.003]}, "sites": {"kind": "weight"}, "first_turn": True},
        "harsh": {"sweep": {"ber": [0.003, 0.03]}, "first_turn": True},
    },
    "stop": {"max_trials": 40, "relative": 0.01},
}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", [pytest.param(STRATA, id="strata"), pytest.param(TURNS, id="first turns")])
def test_two_nodes_give_the_rows_of_one_worker(cluster, run, tmp_path, monkeypatch, given):
    """What the driver decides (strata's weights, which half of a sweep comes next) reaches workers on other nodes."""
    from hwfault.campaigns.measurement import Trust

    study, measurement = measured(write(tmp_path, run, **given))
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    with Database(here / FILE) as database:
        expected = Driver(measurement, database, Here(measurement)).run()
        expected_turns = kept_turns(database)
        draws = {task.draw for task in kept_tasks(database)}
    node = cluster.add_node(num_cpus=1, object_store_memory=1 << 27)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    workers = make_workers(study, Trust(), measurement, "ray")
    nodes = set()

    def watch(_present):
        nodes.update(one.node for one in workers._actors if one.node is not None)

    try:
        with Database(there / FILE) as database:
            figures = Driver(measurement, database, workers, watch).run()
            turns = kept_turns(database)
    finally:
        workers.close()
        cluster.remove_node(node)
    assert len(nodes) == 2
    assert ("strata" in draws) != ("turns" in draws)
    assert (figures, turns) == (expected, expected_turns)
    assert rows_in(there) == rows_in(here)
