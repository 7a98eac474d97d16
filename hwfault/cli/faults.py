"""`hwfault faults`: the faults of a plan at a site, one by one."""

from pathlib import Path

import click

from hwfault.cli.common import (
    SAMPLE_NUMBER,
    given_plan,
    json_option,
    print_json,
    print_json_text,
    print_table,
)
from hwfault.cli.examples import Shown, example_options
from hwfault.cli.fault_options import Given, fault_options
from hwfault.cli.paths import Command, OutputFile
from hwfault.cli.runs import Trusted, run_options
from hwfault.errors import HwfaultError


@click.command("faults", cls=Command)
@click.argument("source")
@run_options
@example_options
@fault_options
@click.option("--site", "name", help="The site's name.  [default: print the plan itself]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--sample", type=SAMPLE_NUMBER, default=0, show_default=True, help="0 for weights and biases.")
@click.option("--words", type=click.IntRange(min=0), help="Words of a sample, where the shape is not known.")
@click.option("--address", is_flag=True, help="The physical place of each cell beside its word and bit.")
@click.option("--save", type=OutputFile(), help="Write the plan to this JSON file.")
@json_option
def command(
    source: str,
    trusted: Trusted,
    shown: Shown,
    given: Given,
    name: str | None,
    seed: int,
    sample: int,
    words: int | None,
    address: bool,
    save: Path | None,
    as_json: bool,
) -> None:
    """Print the faults that strike one sample of a site, in the order of the fault stream.

    SOURCE is a plan (.json), or a network, run or graph with the faults of --faults or --ber; a graph may carry a plan
    of its own. `effect` says what a hit does; bit errors in one direction depend on the bit stored there.
    """
    from hwfault.plan.expected import expected_faults
    from hwfault.plan.fault_plan import FaultPlan
    from hwfault.plan.listing import faults_at, with_addresses

    plan: FaultPlan | None
    if source.endswith(".json"):
        trusted.check_unused(source)
        shown.check_unused(source)
        plan = given_plan([], Path(source), given)
    elif source.endswith(".onnx") and not given.faults:
        from hwfault.graph.edit.carried import plan_of
        from hwfault.graph.run.session import load_model

        trusted.check_unused(source)
        shown.check_unused(source)
        plan = plan_of(load_model(source))
    else:
        plan = given_plan(trusted.sites(source, shown), None, given, seed if given.device is None else given.device)
    if plan is None:
        raise HwfaultError("no faults were named; give --faults FILE, --ber RATE, a plan (.json) or a faulted graph")
    found = [] if name is None else faults_at(plan, name, seed=seed, sample=sample, words=words)
    if address and name is not None:
        found = with_addresses(plan, name, found)
    if save is not None:
        plan.save(save)
    if name is None:
        if as_json:
            print_json_text(plan.to_json())
        else:
            click.echo(str(plan))
        return
    if as_json:
        print_json([fault.model_dump(mode="json", exclude=None if address else {"address"}) for fault in found])
        return
    known = [[f.process, f.word, f.bit, f.aux, f.effect, *([f.address] if address else [])] for f in found]
    rows = [["-" if cell is None else cell for cell in row] for row in known]
    print_table(["fault", "word", "bit", "aux", "effect", *(["address"] if address else [])], rows)
    click.echo(f"{len(found)} faults at {name}, seed {seed}, sample {sample}; {expected_faults(plan, name)}")
