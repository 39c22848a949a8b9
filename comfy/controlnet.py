"""ControlNets under the names node packs import: loading, and applying them while a model is sampled."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.control.base import ControlBase, Residuals, StrengthType, broadcast_image_to
from comfy.control.weights import build_control_network, kept_dtype
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.model_patcher import ModelPatcher
from comfy.placeholders import placeholders

if TYPE_CHECKING:
    from comfy.sampling.protocols import SampledModel

__all__ = ["ControlBase", "ControlNet", "StrengthType", "broadcast_image_to", "load_controlnet", "load_controlnet_state_dict"]

Twin = TypeVar("Twin", bound="ControlNet")

POOLED_NAMES = ("_shuffle", "_shuffle_fp16")


class ControlNet(ControlBase):
    """A ControlNet and its patcher (``control_model_wrapped``)."""

    def __init__(
        self,
        control_model: Any = None,
        global_average_pooling: bool = False,
        compression_ratio: int = 8,
        latent_format: Any = None,
        load_device: torch.device | None = None,
        manual_cast_dtype: torch.dtype | None = None,
        extra_conds: Sequence[str] = ("y",),
        strength_type: StrengthType = StrengthType.CONSTANT,
        concat_mask: bool = False,
        preprocess_image: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.control_model = control_model
        self.load_device = load_device
        if control_model is not None:
            self.control_model_wrapped = comfy.model_patcher.CoreModelPatcher(
                control_model, load_device=load_device, offload_device=comfy.model_management.unet_offload_device()
            )
        self.compression_ratio = compression_ratio
        self.global_average_pooling = global_average_pooling
        self.model_sampling_current: Any = None
        self.manual_cast_dtype = manual_cast_dtype
        self.latent_format = latent_format
        self.extra_conds += extra_conds
        self.strength_type = strength_type
        self.concat_mask = concat_mask
        if preprocess_image is not None:
            self.preprocess_image = preprocess_image

    def get_control(
        self, x_noisy: torch.Tensor, t: torch.Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Residuals | None:
        before = None
        if self.previous_controlnet is not None:
            before = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if not self.is_active_at(t):
            return before
        dtype = self.control_model.dtype if self.manual_cast_dtype is None else self.manual_cast_dtype
        hint = self._fitting_hint(x_noisy, dtype)
        if hint.shape[0] != x_noisy.shape[0]:
            self.cond_hint = hint = broadcast_image_to(hint, x_noisy.shape[0], batched_number)
        extra = {
            name: comfy.model_base.convert_tensor(cond[name], dtype, x_noisy.device)
            for name in self.extra_conds
            if cond.get(name) is not None
        }
        context = comfy.model_management.cast_to_device(cond.get("crossattn_controlnet", cond["c_crossattn"]), x_noisy.device, dtype)
        sampling = self.model_sampling_current
        control = self.control_model(
            x=sampling.calculate_input(t, x_noisy).to(dtype),
            hint=hint,
            timesteps=sampling.timestep(t).to(dtype),
            context=context,
            **{**self.extra_args, **extra},
        )
        return self.control_merge(control, before, output_dtype=None)

    def _fitting_hint(self, x_noisy: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The hint in the size that belongs to *x_noisy*, kept for the next steps: a picture, or, for controls of latents, its latent.

        Raises ``ValueError`` without a hint, or without a VAE where one is needed.
        """
        height, width = (length * self.compression_ratio for length in x_noisy.shape[-2:])
        if self.cond_hint is None or tuple(self.cond_hint.shape[-2:]) != (height, width):
            if self.cond_hint_original is None:
                raise ValueError("the control has no hint picture; give it one with set_cond_hint()")
            if self.latent_format is not None:
                if self.vae is None:
                    raise ValueError("this ControlNet works on the latent of its hint; connect a VAE to the node that applies it")
                pixels = self.vae.spacial_compression_encode()
                height, width = height * pixels, width * pixels
            scaled = comfy.utils.common_upscale(self.cond_hint_original, width, height, self.upscale_algorithm, "center")
            hint = self.preprocess_image(scaled)
            if self.latent_format is not None:
                hint = self._latent_of(hint)
            hint = self._with_masks(hint)
            self.cond_hint = hint.to(device=x_noisy.device, dtype=dtype)
        return self.cond_hint

    def _latent_of(self, hint: torch.Tensor) -> torch.Tensor:
        """The latent of pictures (B x channels x height x width); models that were on the device come back to it."""
        management = comfy.model_management
        sampled = management.loaded_models(only_currently_used=True)
        latent = self.vae.encode(hint.movedim(1, -1))
        management.load_models_gpu(sampled)
        return self.latent_format.process_in(latent)

    def _with_masks(self, hint: torch.Tensor) -> torch.Tensor:
        """*hint* with the channels that the node gave beside it, in its size."""
        parts = [hint]
        for extra in self.extra_concat_orig:
            fitting = comfy.utils.common_upscale(extra.to(hint.device), hint.shape[-1], hint.shape[-2], self.upscale_algorithm, "center")
            if hint.ndim == 5:
                fitting = comfy.utils.repeat_to_batch_size(fitting.unsqueeze(2), hint.shape[2], dim=2)
            parts.append(comfy.utils.repeat_to_batch_size(fitting, hint.shape[0]))
        return torch.cat(parts, dim=1) if len(parts) > 1 else hint

    def copy(self) -> ControlNet:
        return self._copy_as(ControlNet)

    def _copy_as(self, kind: type[Twin]) -> Twin:
        twin = kind(None, load_device=self.load_device, manual_cast_dtype=self.manual_cast_dtype)
        twin.control_model, twin.control_model_wrapped = self.control_model, self.control_model_wrapped
        self.copy_to(twin)
        return twin

    def get_models(self) -> list[Any]:
        return [*super().get_models(), self.control_model_wrapped]

    def pre_run(self, model: SampledModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        super().pre_run(model, percent_to_timestep_function)
        self.model_sampling_current = model.model_sampling

    def cleanup(self) -> None:
        self.model_sampling_current = None
        super().cleanup()


class ControlNetSD35(ControlNet):
    """One for Stable Diffusion 3.5, which borrows a layer of the sampled model."""

    def copy(self) -> ControlNetSD35:
        return self._copy_as(ControlNetSD35)

    def pre_run(self, model: SampledModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        """Raises ``ValueError`` for a model of another family."""
        super().pre_run(model, percent_to_timestep_function)
        network = getattr(model, "diffusion_model", None)
        name = self.control_model.control_settings["borrowed"]
        if not hasattr(network, "joint_blocks"):
            raise ValueError(
                "this ControlNet is for Stable Diffusion 3.5, but the model is of another family; load the two that belong together"
            )
        self.set_extra_arg("borrowed", getattr(network, name))

    def cleanup(self) -> None:
        self.extra_args.pop("borrowed", None)
        super().cleanup()


class QwenControlNet(ControlNet):
    """One for Qwen-Image with first layers of its own."""

    def copy(self) -> QwenControlNet:
        return self._copy_as(QwenControlNet)

    def pre_run(self, model: SampledModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        """Raises ``ValueError`` for a model of another family or width."""
        super().pre_run(model, percent_to_timestep_function)
        network: Any = getattr(model, "diffusion_model", None)
        width = self.control_model.control_settings["width"]
        if not isinstance(network, QwenImageTransformer2DModel) or network.inner_dim != width:
            file, other = (getattr(one, "source_name", "") for one in (self.control_model, model))
            raise ValueError(
                f"{file} is a ControlNet for Qwen-Image with {width} values per token, but the diffusion model {other} is another; "
                "load the two that belong together"
            )


class QwenFunControlNet(QwenControlNet):
    """One of Alibaba's "Fun" for Qwen-Image, which borrows the model's first layers. Strengths act by their square root."""

    def copy(self) -> QwenFunControlNet:
        return self._copy_as(QwenFunControlNet)

    def get_control(
        self, x_noisy: torch.Tensor, t: torch.Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Residuals | None:
        given, self.strength = self.strength, max(self.strength, 0.0) ** 0.5
        try:
            return super().get_control(x_noisy, t, cond, batched_number, transformer_options)
        finally:
            self.strength = given

    def pre_run(self, model: SampledModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        super().pre_run(model, percent_to_timestep_function)
        sampled: Any = model
        self.set_extra_arg("base_model", sampled.diffusion_model)

    def cleanup(self) -> None:
        self.extra_args.pop("base_model", None)
        super().cleanup()


# By the kind that the settings of a network name.
KINDS: dict[str, type[ControlNet]] = {"": ControlNet, "sd35": ControlNetSD35, "qwen": QwenControlNet, "qwen_fun": QwenFunControlNet}
NOT_FOR_CONTROLS = ("kind", "borrowed", "width")


def load_controlnet(ckpt_path: str, model: ModelPatcher | None = None, model_options: dict[str, Any] | None = None) -> ControlNet:
    """The ControlNet of a file; *model* (a patcher) is needed for files that hold differences to one.

    ``model_options``: ``dtype``, ``custom_operations``, ``global_average_pooling`` (default: by the file's name). Raises
    ``ModelFileError``, naming the file, when it holds no supported ControlNet.
    """
    options = dict(model_options or {})
    options.setdefault("global_average_pooling", os.path.splitext(ckpt_path)[0].endswith(POOLED_NAMES))
    with ModelFiles(ckpt_path) as files:
        patcher = load_parts(files, {"controlnet": _ControlPart(files, model, options)})["controlnet"]
    return _of_patcher(patcher, options)


class _ControlPart(Part[ModelPatcher]):
    """The network of a ControlNet's file."""

    def __init__(self, files: ModelFiles, model: ModelPatcher | None, options: dict[str, Any]) -> None:
        of_weights = {name: value for name, value in options.items() if name != "global_average_pooling"}
        bypass = "its weights depend on another model" if model is not None else ""
        super().__init__({"model_options": of_weights}, bypass)
        self._files, self._model, self._given = files, model, options

    def load(self) -> Any:
        return _patcher_of(build_control_network(self._files.source(), self._model, self._given))

    def estimate_bytes(self) -> int:
        source = self._files.source()
        return kept_bytes(source, "", kept_dtype(source, self._given))


def load_controlnet_state_dict(
    state_dict: MutableMapping[str, torch.Tensor], model: ModelPatcher | None = None, model_options: dict[str, Any] | None = None
) -> ControlNet:
    """The ControlNet of tensors in memory; used tensors leave *state_dict*."""
    return _from_source(StateDictSource(state_dict, "the state dict", consume=True), model, dict(model_options or {}))


def _from_source(source: WeightSource, model: ModelPatcher | None, options: dict[str, Any]) -> ControlNet:
    return _of_patcher(_patcher_of(build_control_network(source, model, options)), options)


def _patcher_of(network: Any) -> Any:
    management = comfy.model_management
    return comfy.model_patcher.CoreModelPatcher(
        network, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )


def _of_patcher(patcher: ModelPatcher, options: dict[str, Any]) -> ControlNet:
    network: Any = patcher.model
    cast_dtype = comfy.model_management.unet_manual_cast(network.dtype, patcher.load_device)
    settings = getattr(network, "control_settings", {})
    control = KINDS[settings.get("kind", "")](
        None,
        global_average_pooling=options.get("global_average_pooling", False),
        load_device=patcher.load_device,
        manual_cast_dtype=cast_dtype,
        **{name: value for name, value in settings.items() if name not in NOT_FOR_CONTROLS},
    )
    control.control_model, control.control_model_wrapped = network, patcher
    return control


__getattr__, __dir__ = placeholders(
    __name__,
    "control models of kinds that are not supported",
    "T2IAdapter:ControlBase ControlLora:ControlNet ControlLoraOps:object "
    "load_t2i_adapter() load_controlnet_mmdit() load_controlnet_sd35() load_controlnet_hunyuandit() "
    "load_controlnet_flux_xlabs_mistoline() load_controlnet_flux_instantx() load_controlnet_qwen_instantx() "
    "load_controlnet_qwen_fun() convert_mistoline() controlnet_config() controlnet_load_state_dict()",
)
