"""`make bench`: every benchmark, and what it is to reach; ratios are medians over rounds measured side by side."""

import warnings

from tests.benchmarks.side_by_side import machine

warnings.filterwarnings("ignore", message="fast_hadamard_transform package not found")


def main() -> None:
    from tests.benchmarks import (
        campaign_engines,
        census,
        fast_graph,
        fault_map,
        graph,
        hooks,
        injection,
        integer,
        maps,
        own_integers,
        protection,
        qonnx_ops,
        small_graphs,
        startup,
        stream,
        training_speed,
    )

    print(machine())
    for benchmark in (
        stream,
        injection,
        hooks,
        fault_map,
        protection,
        maps,
        training_speed,
        graph,
        fast_graph,
        qonnx_ops,
        small_graphs,
        own_integers,
        integer,
        campaign_engines,
        census,
        startup,
    ):
        benchmark.main()


main()
