"""A census that time has cut: which flips were tried, which are not covered, and what the rate is at best and worst."""

import numpy as np

from hwfault.campaigns.covered import cut_told
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.driver import Driver
from hwfault.campaigns.figures import Trials, decide
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.page.page import page
from hwfault.campaigns.study.records import Stop
from hwfault.campaigns.study.space import FaultSpace
from hwfault.campaigns.workers import Done, run_job
from hwfault.program.processes import Site
from tests.campaigns.wide.small import measured, write_study


def site(name, words):
    return Site(name=name, kind="weight", bit_width=2, signed=True, layer="x", shape=(words,))


def seen_of(keys, failed=0):
    wrong = np.zeros((len(keys), 4), bool)
    wrong[0, 0] = True
    return Trials(np.array(keys, np.uint64), wrong, np.zeros_like(wrong), None, failed, None)


def test_the_sentence_of_a_cut_census():
    space = FaultSpace((site("a", 3), site("b", 2), site("c", 5)), (6, 10, 20))
    seen = seen_of(range(8))
    estimate = decide(seen, Stop(), "all", "these", 0.0, 20).estimate
    assert cut_told(seen, space, estimate, 0.5) == (
        "not exact: 8 of 20 flips tried within max_minutes (0.5); not covered: 2 of 4 bits of b, all 10 bits of c; "
        "with the 12 missing ones at their best and worst the share is 0.0125 to 0.613"
    )
    failed = seen_of([*range(5), *range(6, 20)], failed=1)
    estimate = decide(failed, Stop(), "all", "these", 0.0, 20).estimate
    assert cut_told(failed, space, estimate, None) == (
        "not exact: 20 of 20 flips tried, 1 of which failed; not covered: 1 of 6 bits of a; "
        "with the 1 missing ones at their best and worst the share is 0.0125 to 0.0625"
    )


class Slow:
    """A worker that says of a job that it took long, so that the next ones are short."""

    count = 1

    def __init__(self, measurement):
        self.measurement, self.jobs = measurement, []

    @property
    def free(self):
        return 1 - len(self.jobs)

    def submit(self, job):
        self.jobs.append(job)

    def collect(self, seconds=None):
        jobs, self.jobs = self.jobs, []
        return [Done(job, run_job(self.measurement, job).rows, seconds=10.0) for job in jobs]

    def close(self):
        pass


def test_run_status_and_page_say_what_a_cut_census_is(tmp_path):
    questions = {"every": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "always"}}
    path = write_study(tmp_path, questions=questions, stop={"max_minutes": 1e-9})
    _, measurement = measured(path)
    with Database(tmp_path / FILE) as database:
        (figure,) = Driver(measurement, database, Slow(measurement)).run()
        (task,) = kept_tasks(database)
        state = task.progress(database).state
        text, _ = page(database, str(tmp_path))
    assert figure.trials < task.total
    assert figure.why.startswith(
        f"not exact: {figure.trials:,} of {task.total:,} flips tried within max_minutes (1e-09)"
    )
    assert "not covered: " in figure.why
    assert state == figure.why
    assert f"under {figure.trials:,} of {task.total:,} single flips on 12 images, and is not exact" in text
    assert figure.why.partition(";")[0][1:] in text
    low, high = figure.sdc.ends
    assert low <= figure.sdc.value <= high
    assert high - low > 0.5
