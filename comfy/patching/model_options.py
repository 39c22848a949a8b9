"""The options of a model that the sampler and the network read: functions, attention patches and replacements."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from comfy.patching.protocols import AdditionalModel

Options = dict[str, Any]


class SetsPatches(Protocol):
    """Whoever keeps patches by the place of the network that calls them."""

    def set_model_patch(self, patch: Any, name: str) -> None: ...

    def set_model_patch_replace(
        self, patch: Any, name: str, block_name: str, number: int, transformer_index: int | None = None
    ) -> None: ...


def create_model_options_clone(orig_model_options: Options) -> Options:
    """A copy whose nested dicts and lists are new and whose values are the same objects."""
    return copy_containers(orig_model_options)


def copy_containers(value: Any) -> Any:
    """*value* with every dict and list in it copied; anything else stays the same object."""
    if isinstance(value, dict):
        return {key: copy_containers(item) for key, item in value.items()} if value else {}
    if isinstance(value, list):
        return [copy_containers(item) for item in value]
    return value


def set_model_options_patch_replace(
    model_options: Options, patch: Any, name: str, block_name: str, number: int, transformer_index: int | None = None
) -> Options:
    """Let *patch* replace part *name* (``attn1``, …) of a block. The containers on the way are replaced, not changed."""
    block = (block_name, number) if transformer_index is None else (block_name, number, transformer_index)
    transformer_options = dict(model_options.get("transformer_options", {}))
    replacements = dict(transformer_options.get("patches_replace", {}))
    replacements[name] = {**replacements.get(name, {}), block: patch}
    transformer_options["patches_replace"] = replacements
    model_options["transformer_options"] = transformer_options
    return model_options


def _append_cfg_function(model_options: Options, name: str, function: Callable[..., Any], disable_cfg1_optimization: bool) -> Options:
    model_options[name] = [*model_options.get(name, ()), function]
    if disable_cfg1_optimization:
        model_options["disable_cfg1_optimization"] = True
    return model_options


def set_model_options_post_cfg_function(
    model_options: Options, post_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False
) -> Options:
    """Let *post_cfg_function* change the guided prediction, after those set before."""
    return _append_cfg_function(model_options, "sampler_post_cfg_function", post_cfg_function, disable_cfg1_optimization)


def set_model_options_pre_cfg_function(
    model_options: Options, pre_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False
) -> Options:
    """Let *pre_cfg_function* change the predictions before guidance, after those set before."""
    return _append_cfg_function(model_options, "sampler_pre_cfg_function", pre_cfg_function, disable_cfg1_optimization)


def patch_setter(name: str, doc: str) -> Callable[[SetsPatches, Any], None]:
    """A patcher's method that adds a patch to those called at the place *name* of the network; *doc* is its docstring."""

    def setter(patcher: SetsPatches, patch: Any) -> None:
        patcher.set_model_patch(patch, name)

    setter.__doc__ = doc
    return setter


class ModelOptions:
    """The options of one patcher, in ``values``. Owns that dict; holds neither patcher nor module.

    Clones share it until one side asks for it or changes it. Once it was handed out, it may change at any time, so clones get copies.
    """

    def __init__(self) -> None:
        self._values: Options = {"transformer_options": {}}
        self._is_shared = False
        self._is_handed_out = False

    def clone(self) -> ModelOptions:
        """Equal options that change independently."""
        twin = ModelOptions()
        twin._values = copy_containers(self._values) if self._is_handed_out else self._values
        twin._is_shared = self._is_shared = not self._is_handed_out
        return twin

    def __copy__(self) -> ModelOptions:
        """The very same options."""
        twin = ModelOptions()
        twin.values = self.values
        return twin

    @property
    def values(self) -> Options:
        """The options, for the caller to change."""
        self._own()
        self._is_handed_out = True
        return self._values

    @values.setter
    def values(self, values: Options) -> None:
        self._values, self._is_shared, self._is_handed_out = values, False, True

    def read(self) -> Options:
        """The options, for reading only."""
        return self._values

    def _own(self) -> Options:
        """The options with containers that no clone has."""
        if self._is_shared:
            self._values, self._is_shared = copy_containers(self._values), False
        return self._values

    def disable_cfg1_optimization(self) -> None:
        """Compute the unconditioned prediction even where guidance 1 would not need it."""
        self._own()["disable_cfg1_optimization"] = True

    def set_cfg_function(self, sampler_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False) -> None:
        """Replace guidance. A function of three arguments gets (cond, uncond, scale), any other the dict of arguments."""
        function = sampler_cfg_function
        if len(inspect.signature(sampler_cfg_function).parameters) == 3:

            def function(arguments: Options) -> Any:
                return sampler_cfg_function(arguments["cond"], arguments["uncond"], arguments["cond_scale"])

        self._own()["sampler_cfg_function"] = function
        if disable_cfg1_optimization:
            self.disable_cfg1_optimization()

    def set_post_cfg_function(self, post_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False) -> None:
        """Add a function that changes the guided result; optionally compute both sides even at a scale of 1."""
        self._values = set_model_options_post_cfg_function(self._own(), post_cfg_function, disable_cfg1_optimization)

    def set_pre_cfg_function(self, pre_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False) -> None:
        """Add a function that changes both sides before guidance; optionally compute both even at a scale of 1."""
        self._values = set_model_options_pre_cfg_function(self._own(), pre_cfg_function, disable_cfg1_optimization)

    def set_calc_cond_batch_function(self, sampler_calc_cond_batch_function: Callable[..., Any]) -> None:
        """Replace the computation of all conditions of a step."""
        self._own()["sampler_calc_cond_batch_function"] = sampler_calc_cond_batch_function

    def set_unet_function_wrapper(self, unet_wrapper_function: Callable[..., Any]) -> None:
        """Call *unet_wrapper_function(apply_model, arguments)* in place of the model."""
        self._own()["model_function_wrapper"] = unet_wrapper_function

    def set_denoise_mask_function(self, denoise_mask_function: Callable[..., Any]) -> None:
        """Let a function change the inpainting mask at each step."""
        self._own()["denoise_mask_function"] = denoise_mask_function

    def set_patch(self, patch: Any, name: str) -> None:
        """Add *patch* to those called at the place *name* of the network."""
        patches = self._own()["transformer_options"].setdefault("patches", {})
        patches[name] = [*patches.get(name, ()), patch]

    def set_patch_replace(self, patch: Any, name: str, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """Replace the attention *name* in the block (*block_name*, *number*), or only in its transformer *transformer_index*."""
        if self._is_handed_out:
            self._values = set_model_options_patch_replace(self._values, patch, name, block_name, number, transformer_index)
            return
        block = (block_name, number) if transformer_index is None else (block_name, number, transformer_index)
        replacements = self._own()["transformer_options"].setdefault("patches_replace", {})
        replacements.setdefault(name, {})[block] = patch

    def set_rope_options(
        self, scale_x: float, shift_x: float, scale_y: float, shift_y: float, scale_t: float, shift_t: float, **kwargs: Any
    ) -> None:
        """Scale and shift rotary positions along width, height and time."""
        options = self._own()["transformer_options"].setdefault("rope_options", {})
        options.update(scale_x=scale_x, scale_y=scale_y, scale_t=scale_t, shift_x=shift_x, shift_y=shift_y, shift_t=shift_t)

    def set_optimized_attention(self, optimized_attention: Callable[..., Any]) -> None:
        """Compute attention with *optimized_attention*, which takes the arguments that the functions of ``attention.py`` take."""

        def override(_: Any, *args: Any, **kwargs: Any) -> Any:
            return optimized_attention(*args, **kwargs)

        if getattr(optimized_attention, "container_function", None) is not None:
            override.container_function = optimized_attention.container_function  # type: ignore[attr-defined]
        self.values["transformer_options"]["optimized_attention_override"] = override

    def move_patches(self, device: torch.device | torch.dtype) -> None:
        """Move patch objects that have a ``to`` to a device, or convert them to a dtype."""
        if any(hasattr(container[key], "to") for container, key in self._patch_slots()):
            self._own()
        for container, key in self._patch_slots():
            if hasattr(container[key], "to"):
                container[key] = container[key].to(device)

    def patches_models(self) -> list[AdditionalModel]:
        """The patchers that patch objects say they need (by a ``models`` method)."""
        needed: list[AdditionalModel] = []
        for container, key in self._patch_slots():
            if hasattr(container[key], "models"):
                needed += container[key].models()
        return needed

    def call_patches(self, function_name: str = "cleanup", arguments: dict[str, Any] | None = None) -> None:
        """Call a method by name on each patch object that has it."""
        for container, key in list(self._patch_slots()):
            if hasattr(container[key], function_name):
                getattr(container[key], function_name)(**(arguments or {}))

    def _patch_slots(self) -> Iterator[tuple[Any, Any]]:
        """(container, key) of every patch object in the options, so that it can be read or replaced."""
        transformer_options = self._values["transformer_options"]
        for patches in transformer_options.get("patches", {}).values():
            yield from ((patches, index) for index in range(len(patches)))
        for replacements in transformer_options.get("patches_replace", {}).values():
            yield from ((replacements, block) for block in list(replacements))
        if "model_function_wrapper" in self._values:
            yield self._values, "model_function_wrapper"
