"""The workers that a study or its user asks for."""

from hwfault.campaigns.local_workers import LocalWorkers
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.study.records import Study
from hwfault.campaigns.workers import Here, Workers
from hwfault.errors import HwfaultError


def make_workers(study: Study, trust: Trust, measurement: Measurement, count: int | str) -> Workers:
    """One worker is this process itself; more are processes of their own; "ray" or "ray://..." those of a cluster.

    Raises HwfaultError for another text, and where there is no cluster.
    """
    if isinstance(count, str):
        from hwfault.campaigns.ray_workers import RayWorkers  # Ray is an extra

        if count != "ray" and not count.startswith("ray://"):
            raise HwfaultError(
                f"workers: {count!r}, expected a number of processes, or a cluster: ray, ray://HOST:PORT"
            )
        return RayWorkers(study, trust, count, measurement)
    if count == 1:
        return Here(measurement)
    return LocalWorkers(study, trust, count, measurement.weighing.weights)
