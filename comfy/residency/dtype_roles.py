"""Which dtype each kind of model is kept and computed in, under ComfyUI's names."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.residency.casting import cast_to
from comfy.residency.platform_facts import is_device_cpu, mac_version

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

    from comfy.residency.process_models import ProcessModels
    from comfy.residency.protocols import Names

torch = lazy_module("torch")


def _usual_dtypes() -> tuple[dtype, ...]:
    return (torch.float16, torch.bfloat16, torch.float32)


class DtypeRoles:
    """Answers by the :class:`DtypePolicy` of *models*; what node packs may have replaced is looked up in *names*. Any thread."""

    def __init__(self, args: Namespace, models: ProcessModels, names: Names) -> None:
        self._args, self._models, self._names = args, models, names

    def __deepcopy__(self, memo: dict[int, Any]) -> DtypeRoles:
        return self  # structures that hold one of these methods are copied; the process has one of this

    def unet_dtype(
        self,
        device: device | None = None,
        model_params: int = 0,
        supported_dtypes: Sequence[dtype] | None = None,
        weight_dtype: dtype | None = None,
    ) -> dtype:
        """The dtype in which to keep a diffusion model of *model_params* parameters (negative: unknown, huge) on *device*."""
        return self._models.policy().unet_dtype(device, model_params, supported_dtypes or _usual_dtypes(), weight_dtype)

    def unet_manual_cast(
        self, weight_dtype: dtype, inference_device: device, supported_dtypes: Sequence[dtype] | None = None
    ) -> dtype | None:
        """The dtype to compute in if it must differ from *weight_dtype* on *inference_device*, else None."""
        return self._models.policy().unet_manual_cast(weight_dtype, inference_device, supported_dtypes or _usual_dtypes())

    def text_encoder_dtype(self, device: device | None = None, weight_dtype: dtype | None = None) -> dtype:
        """The dtype in which to keep a text encoder whose file has *weight_dtype*."""
        return self._models.policy().text_encoder_dtype(device, weight_dtype)

    def vae_dtype(self, device: device | None = None, allowed_dtypes: Sequence[dtype] = ()) -> dtype:
        """The dtype to run an autoencoder in, of those it allows."""
        return self._models.policy().vae_dtype(device, allowed_dtypes)

    def pick_weight_dtype(self, dtype: dtype | None, fallback_dtype: dtype, device: device | None = None) -> dtype:
        """*dtype*, or *fallback_dtype* if *dtype* is None, larger, or cannot be cast on *device*."""
        return self._models.policy().pick_weight_dtype(dtype, fallback_dtype, device)

    def supports_cast(self, device: device | None, dtype: dtype) -> bool:
        """Whether weights in *dtype* can be converted on *device*."""
        return self._models.policy().supports_cast(device, dtype)

    def supports_dtype(self, device: device | None, dtype: dtype) -> bool:
        """Whether *device* computes in *dtype* at speed."""
        return dtype == torch.float32 or (not is_device_cpu(device) and dtype in (torch.float16, torch.bfloat16))

    def should_use_fp16(
        self, device: device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
    ) -> bool:
        """Whether half precision works on *device* and is worth it; with *manual_cast* only for keeping weights."""
        return self._models.policy().should_use_fp16(device, model_params, prioritize_performance, manual_cast)

    def should_use_bf16(
        self, device: device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
    ) -> bool:
        """Whether bfloat16 works on *device* and is worth it; with *manual_cast* only for keeping weights."""
        return self._models.policy().should_use_bf16(device, model_params, prioritize_performance, manual_cast)

    def supports_fp8_compute(self, device: device | None = None) -> bool:
        """Whether float8 matrices are multiplied in hardware, or ``--supports-fp8-compute`` says so."""
        return self._models.policy().supports_fp8_compute(device)

    def supports_nvfp4_compute(self, device: device | None = None) -> bool:
        """Whether nvfp4 matrices are multiplied in hardware."""
        return self._models.policy().supports_block_compute(device)

    def supports_mxfp8_compute(self, device: device | None = None) -> bool:
        """Whether mxfp8 matrices are multiplied in hardware."""
        return self._models.policy().supports_block_compute(device)

    def lora_compute_dtype(self, device: device | None) -> dtype:
        """The dtype patches are computed in: half precision where the device likes it, else float32."""
        return torch.float16 if self._names.should_use_fp16(device) else torch.float32

    def cast_to_device(self, tensor: Tensor, device: device | None, dtype: dtype | None, copy: bool = False) -> Tensor:
        """*tensor* on *device* in *dtype*; itself where both are right, unless *copy*."""
        may_wait = self._names.device_supports_non_blocking(device)
        return cast_to(tensor, dtype=dtype, device=device, non_blocking=may_wait, copy=copy)

    def force_upcast_attention_dtype(self) -> dict[dtype, dtype] | None:
        """A map from dtypes to those attention must use instead, or None. Recent macOS gives black pictures in half precision."""
        version = mac_version()
        by_system = version is not None and version >= (14, 5) and not self._args.dont_upcast_attention
        if self._args.force_upcast_attention or by_system:
            return {torch.float16: torch.float32}
        return None

    def maximum_vram_for_weights(self, device: device | None = None) -> float:
        """Bytes of weights that leave room for computing on *device*."""
        return self._models.policy().maximum_vram_for_weights(device)
