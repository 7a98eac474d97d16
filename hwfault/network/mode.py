"""Networks in evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, each module's own mode restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    # setting an attribute of a module takes its time, and most networks that come here are in this mode
    if any(training for _, training in modes):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training
