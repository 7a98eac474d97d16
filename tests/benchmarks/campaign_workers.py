"""What a second worker brings, and what the store costs: `python -m tests.benchmarks.campaign_workers [--samples N]`.

Needs a quiet machine with two cores. The time is that from the first trial to the last, with all workers ready: what
loading the study takes is told apart.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from hwfault.campaigns.chosen_workers import make_workers
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.driver import Driver
from hwfault.campaigns.measurement import Trust
from hwfault.campaigns.workers import Job
from tests.campaigns.wide.small import measured, write_study

QUESTIONS = {"curve": {"sweep": {"ber": [0.02, 0.05, 0.08]}}}


class Timed(Database):
    """A store that adds up the time in which it keeps trials."""

    seconds = 0.0

    def put(self, task, rows):
        begin = time.perf_counter()
        super().put(task, rows)
        self.seconds += time.perf_counter() - begin


def warm(workers, count):
    """Has every worker run one trial; returns when all have."""
    for key in range(count):
        workers.submit(Job(0, (key,)))
    done = 0
    while done < count:
        done += len(workers.collect())


def run(study, measurement, count):
    """(seconds of all trials, seconds in the store, trials) of a campaign on so many workers."""
    workers = make_workers(study, Trust(), measurement, count)
    try:
        warm(workers, count)
        with tempfile.TemporaryDirectory() as folder, Timed(Path(folder) / FILE) as database:
            begin = time.perf_counter()
            figures = Driver(measurement, database, workers).run()
            return time.perf_counter() - begin, database.seconds, sum(figure.trials for figure in figures)
    finally:
        workers.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stop = {"max_trials": given.trials, "relative": 1e-6}
        study, measurement = measured(write_study(Path(folder), samples=given.samples, questions=QUESTIONS, stop=stop))
        ratios, shares = [], []
        for _ in range(given.rounds):
            one, store, trials = run(study, measurement, 1)
            two, _, _ = run(study, measurement, 2)
            ratios.append(one / two)
            shares.append(store / one)
            print(f"{trials} trials: {one:.2f} s on one worker ({store:.3f} s in the store), {two:.2f} s on two")
    print(f"two workers: {statistics.median(ratios):.2f}x one (1.8 wanted)")
    print(f"the store: {statistics.median(shares):.2%} of the time (1 % at most)")


if __name__ == "__main__":
    main()
