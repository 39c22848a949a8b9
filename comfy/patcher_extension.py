"""What node packs attach to a model or to its options: callbacks, wrappers around functions, injections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Registry = dict[str, dict[Any, list[Callable[..., Any]]]]


class CallbacksMP:
    """Moments in a patcher's life, and what a callback gets besides the patcher."""

    ON_LOAD = "on_load_after"  # device, budget, force_patch_weights, full_load
    ON_DETACH = "on_detach_after"  # unpatch_all
    ON_INJECT_MODEL = "on_inject_model"
    ON_EJECT_MODEL = "on_eject_model"
    ON_PRE_RUN = "on_pre_run"
    ON_CLEANUP = "on_cleanup"
    ON_PREPARE_STATE = "on_prepare_state"  # timestep, model_options
    ON_REGISTER_ALL_HOOK_PATCHES = "on_register_all_hook_patches"  # hooks, target, model_options, registered
    ON_APPLY_HOOKS = "on_apply_hooks"  # hooks
    ON_CLONE = "on_clone"  # the clone
    ON_MATCH_MULTIGPU_CLONES = "on_match_multigpu_clones"  # the clone
    ON_DEEPCLONE_MULTIGPU = "on_deepclone_multigpu"  # the clone

    @classmethod
    def init_callbacks(cls) -> Registry:
        """An empty registry."""
        return {}


class WrappersMP:
    """Functions of sampling that can be wrapped."""

    DIFFUSION_MODEL = "diffusion_model"
    APPLY_MODEL = "apply_model"
    CALC_COND_BATCH = "calc_cond_batch"
    PREDICT_NOISE = "predict_noise"
    SAMPLER_SAMPLE = "sampler_sample"
    OUTER_SAMPLE = "outer_sample"
    PREPARE_SAMPLING = "prepare_sampling"

    @classmethod
    def init_wrappers(cls) -> Registry:
        """An empty registry."""
        return {}


def _registry(name: str, options: dict[str, Any], is_model_options: bool) -> Registry:
    """The registry *name* in transformer options; those of model options are inside and are made if missing."""
    if is_model_options:
        options = options.setdefault("transformer_options", {})
    return options.setdefault(name, {})


def _all_of(name: str, kind: str, options: dict[str, Any], is_model_options: bool) -> list[Callable[..., Any]]:
    inner = options.get("transformer_options", {}) if is_model_options else options
    return [entry for entries in inner.get(name, {}).get(kind, {}).values() for entry in entries]


def _keyed(name: str, kind: str, key: Any, options: dict[str, Any], is_model_options: bool) -> list[Callable[..., Any]]:
    inner = options.get("transformer_options", {}) if is_model_options else options
    return list(inner.get(name, {}).get(kind, {}).get(key, ()))


def add_callback(call_type: str, callback: Callable[..., Any], transformer_options: dict[str, Any], is_model_options: bool = False) -> None:
    """Register *callback* in options, under no key."""
    add_callback_with_key(call_type, None, callback, transformer_options, is_model_options)


def add_callback_with_key(
    call_type: str, key: Any, callback: Callable[..., Any], transformer_options: dict[str, Any], is_model_options: bool = False
) -> None:
    """Register *callback* in options under *key*."""
    _registry("callbacks", transformer_options, is_model_options).setdefault(call_type, {}).setdefault(key, []).append(callback)


def get_callbacks_with_key(
    call_type: str, key: Any, transformer_options: dict[str, Any], is_model_options: bool = False
) -> list[Callable[..., Any]]:
    """The callbacks registered in options under *key*, in order."""
    return _keyed("callbacks", call_type, key, transformer_options, is_model_options)


def get_all_callbacks(call_type: str, transformer_options: dict[str, Any], is_model_options: bool = False) -> list[Callable[..., Any]]:
    """All callbacks registered in options, in order."""
    return _all_of("callbacks", call_type, transformer_options, is_model_options)


def add_wrapper(
    wrapper_type: str, wrapper: Callable[..., Any], transformer_options: dict[str, Any], is_model_options: bool = False
) -> None:
    """Register *wrapper* in options, under no key."""
    add_wrapper_with_key(wrapper_type, None, wrapper, transformer_options, is_model_options)


def add_wrapper_with_key(
    wrapper_type: str, key: Any, wrapper: Callable[..., Any], transformer_options: dict[str, Any], is_model_options: bool = False
) -> None:
    """Register *wrapper* in options under *key*."""
    _registry("wrappers", transformer_options, is_model_options).setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)


def get_wrappers_with_key(
    wrapper_type: str, key: Any, transformer_options: dict[str, Any], is_model_options: bool = False
) -> list[Callable[..., Any]]:
    """The wrappers registered in options under *key*, outermost first."""
    return _keyed("wrappers", wrapper_type, key, transformer_options, is_model_options)


def get_all_wrappers(wrapper_type: str, transformer_options: dict[str, Any], is_model_options: bool = False) -> list[Callable[..., Any]]:
    """All wrappers registered in options, outermost first."""
    return _all_of("wrappers", wrapper_type, transformer_options, is_model_options)


class WrapperExecutor:
    """A function inside wrappers. A wrapper gets the executor and calls it to go one layer further in.

    ``class_obj`` is the object whose method is wrapped, or None.
    """

    def __init__(self, original: Callable[..., Any], class_obj: Any, wrappers: list[Callable[..., Any]], idx: int) -> None:
        self.original = original
        self.class_obj = class_obj
        self.wrappers = list(wrappers)
        self.idx = idx
        self.is_last = idx == len(wrappers)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the next wrapper, or the function. Raises ``IndexError`` when the function was already reached."""
        if self.is_last:
            raise IndexError("a wrapper called its executor after the wrapped function")
        return type(self)(self.original, self.class_obj, self.wrappers, self.idx + 1).execute(*args, **kwargs)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Call this layer. Only for whoever made the executor; a wrapper calls the executor itself."""
        if self.is_last:
            return self.original(*args, **kwargs)
        return self.wrappers[self.idx](self, *args, **kwargs)

    @classmethod
    def new_executor(cls, original: Callable[..., Any], wrappers: list[Callable[..., Any]], idx: int = 0) -> WrapperExecutor:
        """*original* inside *wrappers*."""
        return cls(original, None, wrappers, idx)

    @classmethod
    def new_class_executor(
        cls, original: Callable[..., Any], class_obj: Any, wrappers: list[Callable[..., Any]], idx: int = 0
    ) -> WrapperExecutor:
        """The method *original* of *class_obj* inside *wrappers*."""
        return cls(original, class_obj, wrappers, idx)


class PatcherInjection:
    """Two functions of the patcher: one changes the module when the model is loaded, the other undoes it."""

    def __init__(self, inject: Callable[..., Any], eject: Callable[..., Any]) -> None:
        self.inject = inject
        self.eject = eject


def copy_nested_dicts(input_dict: dict[Any, Any]) -> dict[Any, Any]:
    """A copy whose inner dicts, and lists directly in dicts, are new."""
    return {
        key: copy_nested_dicts(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
        for key, value in input_dict.items()
    }


def merge_nested_dicts(dict1: dict[Any, Any], dict2: dict[Any, Any], copy_dict1: bool = True) -> dict[Any, Any]:
    """*dict1* with *dict2* merged in: dicts recursively, lists appended, anything else replaced."""
    merged = copy_nested_dicts(dict1) if copy_dict1 else dict1
    for key, value in dict2.items():
        if isinstance(value, dict):
            merged[key] = merge_nested_dicts(merged.setdefault(key, {}), value)
        elif isinstance(value, list):
            merged[key] = [*merged.get(key, ()), *value]
        else:
            merged[key] = value
    return merged
