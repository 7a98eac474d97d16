"""Which run of a site the present one is, and whether the forward that a backward pass recomputes can be told.

A quantizer that runs twice in a forward of the whole model makes two tensors, whose faults are their own. What gradient
checkpointing runs again in the backward pass makes the same tensors again: it must get the run numbers, and the
samples' numbers, that it had at first. The latter are those of the last forward, so that is the one to be recomputed.
"""

import functools
import sys
import weakref
from collections.abc import Iterator, Mapping
from types import FrameType, GeneratorType
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.autograd.function import FunctionCtx

from hwfault.errors import PlanError
from hwfault.torch_ops.inside_torch import Moment, backward_pass

_CHECKPOINT = torch.utils.checkpoint.__file__


class Runs:
    """Counts the runs of each site in a forward, and the forwards whose backward pass is still to come."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """How often each site ran; another dict when a forward begins, ends, or is to have other faults from now on."""
        self.begun = 0
        """Tells forwards, and what runs between them, apart; not in compiled graphs."""
        self._segments = _Segments()
        self._forward = 0
        self._open = 0
        """Forwards with gradients since the last backward pass."""
        self._gone_back: int | None = None
        """The forward through whose outputs the last backward pass went; None since the last forward began."""
        self._went_back = False
        self._inside = False
        self._counting = False
        self._changed: str | None = None
        """What decides about faults and was set anew since the last forward."""
        self.with_gradients = False
        """Whether the forward that was begun last has gradients."""
        self._recomputed: int | None = None
        """The last forward of which a part is computed again in its backward pass, as far as that was looked for."""
        self.removed = False
        """Whether the hooks are gone, without which a backward pass computes parts again without faults."""

    def begin(self) -> None:
        """Begins a forward of the whole model, also one that is recomputed or does not count."""
        self.counts = {}
        self._inside = True
        self._counting = False
        if not torch.compiler.is_compiling():
            self.begun += 1

    def count_forward(self) -> None:
        """Notes that the forward that begins is one of its own, with numbers of its own."""
        if torch.compiler.is_compiling():  # a number that grows would have it compiled anew each time
            return
        self._segments.clear()
        self._counting = True
        self._changed = None
        self.with_gradients = torch.is_grad_enabled()
        self._forward += 1
        self._gone_back = None
        if self._went_back:
            self._open, self._went_back = 0, False

    def set_anew(self, what: str) -> None:
        """Notes that something that decides about faults has another value: what is recomputed would read that."""
        self.counts = dict(self.counts)
        if not self._inside:  # what a hook sets in the forward itself, that forward reads
            self._changed = what

    def check_unchanged(self, name: str, now: Moment) -> None:
        """Raises PlanError where a backward pass recomputes a site under other rules than those of its forward."""
        if now.recomputing and self._changed is not None:
            raise PlanError(
                f"the site {name!r} is recomputed in a backward pass (gradient checkpointing), but {self._changed} was "
                "set anew since its forward, so that its faults would be others; set it when the backward pass is "
                "over, or train without checkpointing"
            )

    def end(self, output: Any) -> None:
        """Ends it; if it counts, a backward pass through its outputs is noticed from now on."""
        self.counts = {}
        self._inside = False
        if torch.compiler.is_compiling():
            return
        self.begun += 1
        if not self._counting:
            return
        self._counting = False
        outputs = list(_tensors(output))
        if not torch.is_grad_enabled() or (outputs and not any(tensor.requires_grad for tensor in outputs)):
            # nothing goes back through it, unless all of it is checkpointed
            self._open += in_segment()
            return
        self._open += 1
        # by the graph's nodes, not the tensors: a hook on a tensor keeps others from writing into it
        notice = functools.partial(self._notice, self._forward)
        for node in {tensor.grad_fn for tensor in outputs}:
            if node is not None:
                node.register_prehook(notice)

    def look_for_segment(self, now: Moment) -> None:
        """Notes whether a site runs in a segment that is checkpointed by a forward without gradients (reentrant).

        Of others torch notices itself that what they compute again differs.
        """
        if self.with_gradients and not (now.compiling or now.recomputing or torch.is_grad_enabled()):
            self._recomputed = self._forward if in_segment() else self._recomputed

    @property
    def checkpointed(self) -> bool:
        """Whether the forward is a part that is checkpointed without gradients, whose runs have to be noted."""
        return not self.with_gradients and in_segment()

    def _notice(self, forward: int, _gradients: Any) -> None:
        self._gone_back, self._went_back = forward, True
        if self.removed and forward == self._recomputed:
            raise PlanError(
                "the faults were removed before the backward pass of a forward with gradient checkpointing, which "
                "computes parts of it again, without them then; run the backward pass inside of the block of "
                "`with inject(...)`"
            )

    def number(self, name: str, several: bool, now: Moment) -> int:
        """The number of the present run of a site, from 0; `several` says that it is known to have more than one.

        Raises PlanError in a backward pass if it recomputes a run that cannot be told.
        """
        if now.compiling:
            if several and not self._inside:
                raise _cannot_tell(name)
        elif now.recomputing:
            if several:
                self.check_recomputed(name, now)  # of another forward no run is known
                return self._segments.again(name)
            return 0
        run = self.counts.get(name, 0)
        self.counts[name] = run + 1
        if several and not now.compiling:
            self._segments.ran(name, run)
        return run

    def lost(self, name: str) -> None:
        """Earlier runs of a site in this forward were not noted, so that what recomputes them cannot be told."""
        self._segments.lost.add(name)

    def check_recomputed(self, name: str, now: Moment) -> None:
        """Raises PlanError where a backward pass recomputes anything but the last forward, the only one since."""
        if not now.recomputing:
            return
        self._went_back = True
        forwards = self._open + self._counting  # one that has not ended may go back over a part of itself
        if forwards == 1 and self._gone_back in (None, self._forward):
            return
        what = (
            f"{forwards} forwards with gradients have gone since the last backward pass"
            if forwards > 1
            else "the last forward had no gradients, or is not the one that is recomputed"
        )
        raise PlanError(
            f"the site {name!r} is recomputed in a backward pass (gradient checkpointing), but {what}, so that its "
            "faults would be those of another forward; run the backward pass of each forward before the next forward "
            "(forwards without one under torch.no_grad()), or train without checkpointing"
        )


class _Pass:
    """The runs of a segment in its first pass, by site, and how far the present recomputation is.

    `made` is the backward pass that the first pass is a part of, where a segment around it is recomputed; else -1.
    """

    def __init__(self, made: int = -1) -> None:
        self.made = made
        self.runs: dict[str, list[int]] = {}
        self.done: dict[str, int] = {}
        self.task = -1


class _Segments:
    """The checkpointed parts of a forward, and which runs of sites with several there were in each.

    torch.utils.checkpoint has one object for each segment, in its forward as in its recomputation: its frames on the
    stack hold it. Where there is none, as in checkpointing of another kind, a run cannot be told, which is an error.
    """

    def __init__(self) -> None:
        self.lost: set[str] = set()
        # weak, so that no activation lives longer than it would
        self._passes: weakref.WeakKeyDictionary[Any, _Pass] = weakref.WeakKeyDictionary()

    def clear(self) -> None:
        """Forgets the segments of the forward before."""
        self.lost.clear()
        self._passes.clear()

    def ran(self, name: str, run: int) -> None:
        """Notes a run in all segments that it lies in."""
        for segment in _segments():
            for held in segment:
                self._passes.setdefault(held, _Pass()).runs.setdefault(name, []).append(run)

    def again(self, name: str) -> int:
        """The number of a run that is recomputed."""
        new: list[Any] = []
        task = backward_pass()
        for segment in _segments():  # from the innermost: an outer one may be running because of it
            passes = [self._passes[held] for held in segment if held in self._passes]
            # one that this very backward pass makes is in its first pass still
            found = next((known for known in passes if name in known.runs and known.made != task), None)
            if found is not None and name not in self.lost:
                run = self._next(found, name)
                for inner in new:  # segments that the recomputation makes, to be recomputed in their turn
                    self._passes.setdefault(inner, _Pass(task)).runs.setdefault(name, []).append(run)
                return run
            new += segment
        raise _cannot_tell(name)

    @staticmethod
    def _next(found: _Pass, name: str) -> int:
        # a segment is recomputed at most once by a backward pass; it may stop early, and so never come to its end
        task = backward_pass()
        if found.task != task:
            found.task, found.done = task, {}
        done = found.done.get(name, 0)
        if done >= len(found.runs[name]):
            raise _cannot_tell(name)
        found.done[name] = done + 1
        return found.runs[name][done]


def _cannot_tell(name: str) -> PlanError:
    return PlanError(
        f"the site {name!r} runs several times in one forward, and runs again outside of it or in a backward pass, "
        "where which run it is cannot be told; recompute it with torch.utils.checkpoint.checkpoint, not in compiled "
        "graphs, and resolve the faults with an example of the inputs (example=...)"
    )


def in_segment() -> bool:
    """Whether what runs now is a part that is checkpointed, or the whole of it."""
    return any(_segments())


def _segments() -> Iterator[list[Any]]:
    """What torch has for each checkpointed segment that is being run, from the innermost to the outermost.

    Beside the segment's object there may be others of passing things, such as a tensor that is asked for.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _CHECKPOINT:
            # one object may have several names
            yield list({id(held): held for held in _held(frame.f_locals)}.values())
        frame = frame.f_back


def _held(names: Mapping[str, Any]) -> Iterator[Any]:
    """The segments' objects among local variables, and those of generators there."""
    for value in list(names.values()):
        if isinstance(value, GeneratorType):
            if value.gi_frame is not None and value.gi_code.co_filename == _CHECKPOINT:
                yield from _held(value.gi_frame.f_locals)
        elif isinstance(value, FunctionCtx) or type(value).__module__ == torch.utils.checkpoint.__name__:
            yield value


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns; tuples, lists and mappings of them are looked through."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from (tensor for value in output.values() for tensor in _tensors(value))
    elif isinstance(output, tuple | list):
        yield from (tensor for value in output for tensor in _tensors(value))
