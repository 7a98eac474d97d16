"""Everything that makes up a model, for equality before and after."""

import torch

_HOOKS = [
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
]


def snapshot(model):
    """Tensors by identity and value, modes, every module's own attributes, and its hooks in order."""
    return {name: _module(module) for name, module in model.named_modules(remove_duplicate=False)}


def _module(module):
    own = {key: _value(value) for key, value in vars(module).items() if key not in _HOOKS}
    tensors = {**module._parameters, **module._buffers}
    return {
        "class": type(module),
        "attributes": own,
        "hooks": {key: [(k, id(hook)) for k, hook in getattr(module, key).items()] for key in _HOOKS},
        "tensors": {key: (id(t), _bytes(t), t.requires_grad) for key, t in tensors.items() if t is not None},
        "training": module.training,
    }


def _value(value):
    if isinstance(value, torch.Tensor):
        return id(value), _bytes(value)
    if isinstance(value, dict | list | set | tuple):
        return type(value), len(value)
    return value if isinstance(value, bool | int | float | str | None) else id(value)


def _bytes(tensor):
    return tensor.detach().cpu().numpy().tobytes()
