"""Compiles parts of a diffusion model and uses them while the model is applied."""

from collections.abc import Callable, Mapping
from typing import Any

from comfy.lazy_import import lazy_module

torch = lazy_module("torch")
model_utils = lazy_module("comfy.utils")
patcher_extension = lazy_module("comfy.patcher_extension")
attention = lazy_module("comfy.ldm.modules.attention")

COMPILE_KEY = "torch.compile"
TORCH_COMPILE_KWARGS = "torch_compile_kwargs"


def apply_torch_compile_factory(compiled_module_dict: Mapping[str, Any]) -> Callable[..., Any]:
    """A wrapper of the model's application that replaces parts by the compiled ones ({attribute path: module}) meanwhile."""

    def apply_torch_compile_wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
        model = executor.class_obj
        originals = {path: model_utils.get_attr(model, path) for path in compiled_module_dict}
        try:
            for path, compiled in compiled_module_dict.items():
                model_utils.set_attr(model, path, compiled)
            return executor(*args, **kwargs)
        finally:
            for path, original in originals.items():
                model_utils.set_attr(model, path, original)

    return apply_torch_compile_wrapper


def set_torch_compile_wrapper(
    model: Any,
    backend: str,
    options: dict[str, str] | None = None,
    mode: str | None = None,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    keys: list[str] | None = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Make the patcher *model* compile the parts *keys* (default: the whole diffusion model) and use them whenever it is applied.

    The other arguments go to ``torch.compile``. An earlier wrapper is replaced.
    """
    attention.chosen_attention()  # so that no graph is cut to choose it
    paths = keys or ["diffusion_model"]
    settings = {"backend": backend, "options": options, "mode": mode, "fullgraph": fullgraph, "dynamic": dynamic}
    compiled = {path: torch.compile(model=model.get_model_object(path), **settings) for path in paths}
    kind = patcher_extension.WrappersMP.APPLY_MODEL
    model.remove_wrappers_with_key(kind, COMPILE_KEY)
    model.add_wrapper_with_key(kind, COMPILE_KEY, apply_torch_compile_factory(compiled))
    model.model_options[TORCH_COMPILE_KWARGS] = settings
