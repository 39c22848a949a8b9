"""Lets nodes take a patched model from before instead of building it again."""

from collections.abc import Callable
from typing import Any

from comfy.lazy_import import lazy_module
from comfy_api.internal.singleton import ProxiedSingleton

__all__ = ["Patching"]

registry = lazy_module("comfy.patching.patched_models")


class Patching(ProxiedSingleton):
    """Re-uses patched models, and what is computed for them, by the contents of what they are made from.

    ``patched(base, params, build)`` gives ``build(clone of base)``, or a model with the patches that it gave before, if *base*,
    *params* and *build* have the same contents as then. *params* is any value that names all that the result depends on: numbers,
    texts, tensors, containers of them, functions, and objects whose class has a method ``patch_identity_key()`` that returns such a
    value. *build* is called with a clone that it may change; it returns the clone, or None. What cannot be compared is built each
    time, and ``GET /caches`` says why. Raises what *build* raises.
    """

    async def patched(self, base: Any, params: Any, build: Callable[[Any], Any]) -> Any:
        """The patched model, the caller's own."""
        return registry.patched_models().patched(base, params, build)

    async def remembered(self, params: Any, compute: Callable[[], Any]) -> Any:
        """What ``compute()`` gives, or gave before for equal *params*: for tensors that are the same in run after run.

        *params* and *compute* count as for :meth:`patched`. The result, made of tensors, numbers, texts and containers, is shared and not
        to be changed. Raises what *compute* raises.
        """
        return registry.content_memo().remembered(params, compute)
