"""Private names of torch stand in one module, and it answers what goes on."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import hwfault
from hwfault.torch_ops import inside_torch
from hwfault.torch_ops.inside_torch import Moment, is_plain, moment, traced

PACKAGE = Path(hwfault.__file__).parent
OWN = PACKAGE / "torch_ops" / "inside_torch.py"
KNOWN_TO_TORCH = {*dir(torch.Tensor), *dir(nn.Linear(1, 1)), *dir(nn.Conv2d(1, 1, 1)), "_dynamo_static_input_type"}


def private_names(source):
    """What a source asks torch for by names that begin with one underscore, and what it imports of that kind."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of = ast.unparse(node.value)
            torch_s = of.startswith(("torch.", "nn.", "forward_ad")) or of == "torch"
            if torch_s or (node.attr in KNOWN_TO_TORCH and of not in ("self", "cls")):
                yield f"{of}.{node.attr}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from filter(is_private, names)
        if isinstance(node, ast.Constant) and node.value in ("_orig_mod", "torch._dynamo"):
            yield node.value


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_private_names_of_torch_stand_in_one_module():
    others = [path for path in PACKAGE.rglob("*.py") if path != OWN]
    found = {str(path): names for path in others if (names := list(private_names(path.read_text(encoding="utf-8"))))}
    assert not found
    assert len(list(private_names(OWN.read_text(encoding="utf-8")))) > 15


@pytest.mark.parametrize(
    "line",
    [
        "torch._C._tracing()",
        "x._version",
        "module._forward_hooks.values()",
        "from torch._dynamo import config",
        "from torch.nn.modules.batchnorm import _BatchNorm",
        "'torch._dynamo' in sys.modules",
        "forward_ad._current_level",
    ],
)
def test_each_kind_of_private_name_is_seen(line):
    assert list(private_names(line))


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_a_moment_in_which_nobody_looks():
    assert moment() == Moment(followed=False, compiling=False, recomputing=False)


def test_a_moment_in_which_a_mode_follows_the_operators():
    with Watching():
        assert moment() == Moment(followed=True, compiling=False, recomputing=False)
    with forward_ad.dual_level():
        assert traced()
    assert torch.func.vmap(lambda x: x + traced())(torch.zeros(1)).item() == 1
    assert not traced()


def test_a_moment_in_a_backward_pass():
    seen = []
    x = torch.ones(1, requires_grad=True)
    y = x * 2
    y.register_hook(lambda _gradient: seen.append((moment(), inside_torch.backward_pass())))
    y.backward()
    assert seen[0][0] == Moment(followed=False, compiling=False, recomputing=True)
    assert seen[0][1] >= 0 > inside_torch.backward_pass()


def test_a_moment_in_which_a_compiler_follows():
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=True)
    def run(x):
        now = moment()
        return x + now.followed + 2 * now.compiling + 4 * now.recomputing

    try:
        assert run(torch.zeros(())).item() == 3
    finally:
        torch._dynamo.reset()


def test_plain_tensors():
    assert is_plain(torch.ones(2))
    with torch.inference_mode():
        assert is_plain(torch.ones(2))
    for other in (nn.Parameter(torch.ones(2)), torch.ones(2, device="meta"), torch._efficientzerotensor(2), 1.0):
        assert not is_plain(other)


def test_compiled_modules_show_what_they_were_made_of():
    module = nn.Linear(1, 1)
    assert inside_torch.compiled(torch.compile(module, backend="eager")) is module
    assert inside_torch.compiled(module) is None


def test_one_child_under_two_names():
    module = nn.Module()
    module.one = module.other = nn.Linear(1, 1)
    module.register_module("none", None)
    assert list(inside_torch.named_children(module)) == ["one", "other", "none"]
    assert inside_torch.registered(module.one, "weight") is module.one.weight
    assert inside_torch.registered(module, "weight") is None
