"""How often the bits of each site flip under the faults of a question."""

from collections.abc import Sequence

from hwfault.campaigns.about import read_about
from hwfault.campaigns.database import Database
from hwfault.campaigns.kept import KeptTask
from hwfault.errors import HwfaultError, nearest


def kept_rates(database: Database, tasks: Sequence[KeptTask], name: str) -> dict[str, float]:
    """The rate of a bit at each site under the faults of the task of that name.

    Raises HwfaultError for a task that there is not, or that has no faults of its own, and for a store that an older
    version began.
    """
    named = {task.name: task for task in tasks if task.draw == "seeds"}
    if name not in named:
        raise HwfaultError(f"rates_of: no question with faults of its own is called {name!r}: {nearest(name, named)}")
    about = read_about(database)
    found = None if about is None else about.rates.get(named[name].stored.digest)
    if found is None:
        raise HwfaultError(
            f"rates_of: the store does not say how often the faults of {name!r} strike each site; "
            "`hwfault campaign resume` adds it"
        )
    return found
