"""Page-locking the weights of whole modules, so that they reach an accelerator at full speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management

if TYPE_CHECKING:
    from torch.nn import Module


def pin_memory(module: Module) -> bool:
    """Page-lock *module*'s own parameters that lie on the host. Returns whether any was, within the budget."""
    done = [comfy.model_management.pin_memory(parameter) for parameter in module.parameters(recurse=False)]
    return any(done)


def unpin_memory(module: Module) -> bool:
    """Undo :func:`pin_memory`. Returns whether any was pinned."""
    done = [comfy.model_management.unpin_memory(parameter) for parameter in module.parameters(recurse=False)]
    return any(done)
