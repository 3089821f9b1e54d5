"""Whether somebody watches or changes what a module computes."""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks run when `module` itself does, forward or backward.

    Not counted: those by which transformers collects hidden states. They stay once a pass has asked
    for such states, and do nothing in the others.

    Args:
        module: Its submodules are not looked at.
    """
    return bool(
        _has_any_global_hook()
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or any(not _collects(hook) for hook in module._forward_hooks.values())
    )


def _collects(hook: object) -> bool:
    # Defined anew for each module, so known by its name alone.
    return getattr(hook, "__name__", "") == "output_capturing_hook"
