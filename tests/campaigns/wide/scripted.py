"""Workers that do what a test says: they die of some trials, raise at others, or go away with what they are at."""

from hwfault.campaigns.workers import Done, run_job


class Scripted:
    """Workers in this process, `count` of them, that answer in any order the test likes (the last job first).

    `deadly(job)` says whether a worker dies of a job, `raising(job)` whether it raises, `leaving(job)` whether the
    worker goes away for another reason. `seen` are all the jobs, in order.
    """

    def __init__(self, measurement, count=2, *, deadly=None, raising=None, leaving=None):
        self.measurement = measurement
        self.count = count
        self.seen = []
        self._jobs = []
        self._deadly = deadly or (lambda job: False)
        self._raising = raising or (lambda job: False)
        self._leaving = leaving or (lambda job: False)

    @property
    def free(self):
        return self.count - len(self._jobs)

    def submit(self, job):
        assert self.free > 0
        self.seen.append(job)
        self._jobs.append(job)

    def collect(self, seconds=None):
        job = self._jobs.pop()
        if self._deadly(job):
            return [Done(job, [], "its worker was ended", died=True)]
        if self._raising(job):
            return [Done(job, [], "it raised")]
        if self._leaving(job):
            return [Done(job, [], "its node went away", lost=True)]
        return [run_job(self.measurement, job)]

    def close(self):
        self._jobs = []
