"""The options of a model that the sampler and the network read: functions, attention patches and replacements."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

Options = dict[str, Any]


def create_model_options_clone(orig_model_options: Options) -> Options:
    """A copy whose nested dicts and lists are new and whose values are the same objects."""
    return copy_containers(orig_model_options)


def copy_containers(value: Any) -> Any:
    """*value* with every dict and list in it copied; anything else stays the same object."""
    if isinstance(value, dict):
        return {key: copy_containers(item) for key, item in value.items()}
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


class OptionSetters:
    """The part of ``ModelPatcher`` that writes ``model_options``."""

    model_options: Options

    def disable_model_cfg1_optimization(self) -> None:
        """Compute the unconditioned prediction even where guidance 1 would not need it."""
        self.model_options["disable_cfg1_optimization"] = True

    def set_model_sampler_cfg_function(self, sampler_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False) -> None:
        """Replace guidance. A function of three arguments gets (cond, uncond, scale), any other the dict of arguments."""
        function = sampler_cfg_function
        if len(inspect.signature(sampler_cfg_function).parameters) == 3:

            def function(arguments: Options) -> Any:
                return sampler_cfg_function(arguments["cond"], arguments["uncond"], arguments["cond_scale"])

        self.model_options["sampler_cfg_function"] = function
        if disable_cfg1_optimization:
            self.disable_model_cfg1_optimization()

    def set_model_sampler_post_cfg_function(self, post_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False) -> None:
        """See :func:`set_model_options_post_cfg_function`."""
        self.model_options = set_model_options_post_cfg_function(self.model_options, post_cfg_function, disable_cfg1_optimization)

    def set_model_sampler_pre_cfg_function(self, pre_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False) -> None:
        """See :func:`set_model_options_pre_cfg_function`."""
        self.model_options = set_model_options_pre_cfg_function(self.model_options, pre_cfg_function, disable_cfg1_optimization)

    def set_model_sampler_calc_cond_batch_function(self, sampler_calc_cond_batch_function: Callable[..., Any]) -> None:
        """Replace the computation of all conditions of a step."""
        self.model_options["sampler_calc_cond_batch_function"] = sampler_calc_cond_batch_function

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Callable[..., Any]) -> None:
        """Call *unet_wrapper_function(apply_model, arguments)* in place of the model."""
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_denoise_mask_function(self, denoise_mask_function: Callable[..., Any]) -> None:
        """Let a function change the inpainting mask at each step."""
        self.model_options["denoise_mask_function"] = denoise_mask_function

    def set_model_patch(self, patch: Any, name: str) -> None:
        """Add *patch* to those called at the place *name* of the network."""
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches[name] = [*patches.get(name, ()), patch]

    def set_model_patch_replace(self, patch: Any, name: str, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """See :func:`set_model_options_patch_replace`."""
        self.model_options = set_model_options_patch_replace(self.model_options, patch, name, block_name, number, transformer_index)

    def set_model_attn1_patch(self, patch: Any) -> None:
        """Change the inputs of self-attention."""
        self.set_model_patch(patch, "attn1_patch")

    def set_model_attn2_patch(self, patch: Any) -> None:
        """Change the inputs of cross-attention."""
        self.set_model_patch(patch, "attn2_patch")

    def set_model_attn1_replace(self, patch: Any, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """Replace self-attention in one block."""
        self.set_model_patch_replace(patch, "attn1", block_name, number, transformer_index)

    def set_model_attn2_replace(self, patch: Any, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """Replace cross-attention in one block."""
        self.set_model_patch_replace(patch, "attn2", block_name, number, transformer_index)

    def set_model_attn1_output_patch(self, patch: Any) -> None:
        """Change the result of self-attention."""
        self.set_model_patch(patch, "attn1_output_patch")

    def set_model_attn2_output_patch(self, patch: Any) -> None:
        """Change the result of cross-attention."""
        self.set_model_patch(patch, "attn2_output_patch")

    def set_model_input_block_patch(self, patch: Any) -> None:
        """Change the result of each input block."""
        self.set_model_patch(patch, "input_block_patch")

    def set_model_input_block_patch_after_skip(self, patch: Any) -> None:
        """Change the result of each input block after the skip connection took it."""
        self.set_model_patch(patch, "input_block_patch_after_skip")

    def set_model_output_block_patch(self, patch: Any) -> None:
        """Change what goes into each output block."""
        self.set_model_patch(patch, "output_block_patch")

    def set_model_emb_patch(self, patch: Any) -> None:
        """Change the time embedding."""
        self.set_model_patch(patch, "emb_patch")

    def set_model_forward_timestep_embed_patch(self, patch: Any) -> None:
        """Handle layers of own kinds inside a block."""
        self.set_model_patch(patch, "forward_timestep_embed_patch")

    def set_model_double_block_patch(self, patch: Any) -> None:
        """Change the result of each double block of a diffusion transformer."""
        self.set_model_patch(patch, "double_block")

    def set_model_post_input_patch(self, patch: Any) -> None:
        """Change the embedded input of a diffusion transformer."""
        self.set_model_patch(patch, "post_input")

    def set_model_noise_refiner_patch(self, patch: Any) -> None:
        """Change the result of the noise refiner."""
        self.set_model_patch(patch, "noise_refiner")

    def set_model_middle_block_after_patch(self, patch: Any) -> None:
        """Change the result of the middle block."""
        self.set_model_patch(patch, "middle_block_after_patch")

    def set_model_rope_options(
        self, scale_x: float, shift_x: float, scale_y: float, shift_y: float, scale_t: float, shift_t: float, **kwargs: Any
    ) -> None:
        """Scale and shift rotary positions along width, height and time."""
        options = self.model_options["transformer_options"].setdefault("rope_options", {})
        options.update(scale_x=scale_x, scale_y=scale_y, scale_t=scale_t, shift_x=shift_x, shift_y=shift_y, shift_t=shift_t)

    def _patch_slots(self) -> Iterator[tuple[Any, Any]]:
        """(container, key) of every patch object in the options, so that it can be read or replaced."""
        transformer_options = self.model_options["transformer_options"]
        for patches in transformer_options.get("patches", {}).values():
            yield from ((patches, index) for index in range(len(patches)))
        for replacements in transformer_options.get("patches_replace", {}).values():
            yield from ((replacements, block) for block in list(replacements))
        if "model_function_wrapper" in self.model_options:
            yield self.model_options, "model_function_wrapper"

    def model_patches_to(self, device: Any) -> None:
        """Move patch objects that have a ``to`` to a device, or convert them to a dtype."""
        for container, key in self._patch_slots():
            if hasattr(container[key], "to"):
                container[key] = container[key].to(device)

    def model_patches_models(self) -> list[Any]:
        """The patchers that patch objects say they need (by a ``models`` method)."""
        needed: list[Any] = []
        for container, key in self._patch_slots():
            if hasattr(container[key], "models"):
                needed += container[key].models()
        return needed

    def model_patches_call_function(self, function_name: str = "cleanup", arguments: dict[str, Any] | None = None) -> None:
        """Call a method by name on each patch object that has it."""
        for container, key in list(self._patch_slots()):
            if hasattr(container[key], function_name):
                getattr(container[key], function_name)(**(arguments or {}))
