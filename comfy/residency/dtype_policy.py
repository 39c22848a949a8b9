"""Which dtype weights are kept and computed in, from the flags and what the device is good at."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy.residency.casting import dtype_size
from comfy.residency.torch_settings import RDNA2_OR_OLDER, adds_in_fp16

if TYPE_CHECKING:
    from torch import device, dtype

    from comfy.residency.device_table import DeviceTable

torch = lazy_module("torch")

UNET_FLAGS = (
    ("fp32_unet", "float32"),
    ("fp64_unet", "float64"),
    ("bf16_unet", "bfloat16"),
    ("fp16_unet", "float16"),
    ("fp8_e4m3fn_unet", "float8_e4m3fn"),
    ("fp8_e5m2_unet", "float8_e5m2"),
    ("fp8_e8m0fnu_unet", "float8_e8m0fnu"),
)
TEXT_ENCODER_FLAGS = (
    ("fp8_e4m3fn_text_enc", "float8_e4m3fn"),
    ("fp8_e5m2_text_enc", "float8_e5m2"),
    ("fp16_text_enc", "float16"),
    ("bf16_text_enc", "bfloat16"),
    ("fp32_text_enc", "float32"),
)
VAE_FLAGS = (("fp16_vae", "float16"), ("bf16_vae", "bfloat16"), ("fp32_vae", "float32"))
FLOAT8_NAMES = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
UNKNOWN_PARAMETERS = 10**21
# Pascal cards run half precision slowly; Turing cards without tensor cores give wrong results in it.
PASCAL = re.compile(r"10[6-8]0|1050|titan x|p[456]000|p[345]200|p3000|p40|p100|\bp[46]\b", re.IGNORECASE)
TURING_WITHOUT_TENSOR_CORES = re.compile(r"16[356]0|T5[05]0|T600|MX[45]50|CMP 30HX|T[12]000")


class DtypePolicy:
    """Answers by upstream's rules. On the CPU (simulated accelerators included) everything is computed in float32."""

    def __init__(self, devices: DeviceTable) -> None:
        self._devices = devices
        self._args = devices.args
        self.prioritizes_fp16 = adds_in_fp16(self._args, devices.kind)

    def unet_dtype(self, device: device | None, model_params: int, supported_dtypes: Sequence[dtype], weight_dtype: dtype | None) -> dtype:
        """The dtype to keep a diffusion model of *model_params* parameters (negative: unknown, huge) in."""
        forced = self._from_flags(UNET_FLAGS)
        if forced is not None:
            return forced
        params = UNKNOWN_PARAMETERS if model_params < 0 else model_params
        if weight_dtype in float8_types() and (self.supports_fp8_compute(device) or params * 2 > self.maximum_vram_for_weights(device)):
            return weight_dtype
        if (
            (self.prioritizes_fp16 or weight_dtype == torch.float16)
            and torch.float16 in supported_dtypes
            and self.should_use_fp16(device, params)
        ):
            return torch.float16
        for manual_cast in (False, True):
            for candidate in supported_dtypes:
                if candidate == torch.float16 and self.should_use_fp16(device, params, manual_cast=manual_cast):
                    return candidate
                if candidate == torch.bfloat16 and self.should_use_bf16(device, params, manual_cast=manual_cast):
                    return candidate
        return torch.float32

    def unet_manual_cast(self, weight_dtype: dtype, inference_device: device, supported_dtypes: Sequence[dtype]) -> dtype | None:
        """The dtype to compute in when it must differ from the kept one, else None."""
        if weight_dtype in (torch.float32, torch.float64):
            return None
        if weight_dtype == torch.float16 and self.should_use_fp16(inference_device, prioritize_performance=False):
            return None
        has_bf16 = self.should_use_bf16(inference_device)
        if weight_dtype == torch.bfloat16 and has_bf16:
            return None
        has_fp16 = self.should_use_fp16(inference_device)
        if self.prioritizes_fp16 and has_fp16 and torch.float16 in supported_dtypes:
            return torch.float16
        usable = {torch.float16: has_fp16, torch.bfloat16: has_bf16}
        return next((candidate for candidate in supported_dtypes if usable.get(candidate)), torch.float32)

    def text_encoder_dtype(self, device: device | None, weight_dtype: dtype | None = None) -> dtype:
        """The dtype to keep a text encoder in whose file has *weight_dtype*. A CPU computes in float32 whatever it is."""
        forced = self._from_flags(TEXT_ENCODER_FLAGS)
        if forced is not None:
            return forced
        on_cpu = device is not None and device.type == "cpu"
        return weight_dtype if on_cpu and weight_dtype is not None and weight_dtype in (torch.float32, torch.bfloat16) else torch.float16

    def vae_dtype(self, device: device | None, allowed_dtypes: Sequence[dtype]) -> dtype:
        """The first of *allowed_dtypes* the device is good at, else float32."""
        forced = self._from_flags(VAE_FLAGS)
        if forced is not None:
            return forced
        for candidate in allowed_dtypes:
            if candidate == torch.float16 and self.should_use_fp16(device):
                return candidate
            if candidate == torch.bfloat16 and self.should_use_bf16(device):
                return candidate
        return torch.float32

    def pick_weight_dtype(self, dtype: dtype | None, fallback_dtype: dtype, device: device | None) -> dtype:
        """*dtype* unless it is unknown, larger than *fallback_dtype*, or cannot be cast on *device*."""
        if dtype is None or dtype_size(dtype) > dtype_size(fallback_dtype) or not self.supports_cast(device, dtype):
            return fallback_dtype
        return dtype

    def supports_cast(self, device: device | None, dtype: dtype) -> bool:
        """Whether weights in *dtype* can be converted on *device*."""
        if dtype in (torch.float32, torch.float16):
            return True
        if dtype == torch.bfloat16:
            return True
        return getattr(device, "type", None) != "mps" and dtype in (torch.float8_e4m3fn, torch.float8_e5m2)

    def should_use_fp16(
        self, device: device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
    ) -> bool:
        """Whether half precision is right and worth it. *manual_cast*: only for keeping weights, computing elsewhere."""
        if getattr(device, "type", None) == "cpu":
            return False
        if self._args.force_fp16:
            return True
        kind = self._kind_of(device)
        if self._args.force_fp32 or kind in ("cpu", "simulated"):
            return False
        if kind == "xpu":
            return bool(self._devices.find(device).properties().has_fp16)
        if kind in ("mps", "rocm"):
            return True
        properties = self._devices.find(device).properties()
        if properties.major >= 8 or properties.major < 6:
            return properties.major >= 8
        if PASCAL.search(properties.name):
            return manual_cast or platform.system() == "Windows"
        if manual_cast and self._saves_room(device, model_params, prioritize_performance):
            return True
        return properties.major >= 7 and not TURING_WITHOUT_TENSOR_CORES.search(properties.name)

    def should_use_bf16(
        self, device: device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
    ) -> bool:
        """The same for bfloat16."""
        kind = self._kind_of(device)
        if getattr(device, "type", None) == "cpu" or self._args.force_fp32 or kind in ("cpu", "simulated"):
            return False
        if kind == "mps":
            return tuple(int(part) for part in (platform.mac_ver()[0] or "0").split(".")) >= (14,)
        if kind == "xpu":
            return bool(torch.xpu.is_bf16_supported())
        properties = self._devices.find(device).properties()
        if kind == "rocm" and RDNA2_OR_OLDER.search(properties.gcnArchName):
            return manual_cast
        if properties.major >= 8:
            return True
        return bool(torch.cuda.is_bf16_supported() and manual_cast and self._saves_room(device, model_params, prioritize_performance))

    def supports_fp8_compute(self, device: device | None = None) -> bool:
        """Whether the device multiplies float8 matrices: NVIDIA from compute capability 8.9, or ``--supports-fp8-compute``."""
        if self._args.supports_fp8_compute:
            return True
        if self._kind_of(device) != "cuda" or getattr(device, "type", "cuda") != "cuda":
            return False
        properties = self._devices.find(device).properties()
        return (properties.major, properties.minor) >= (8, 9)

    def supports_block_compute(self, device: device | None = None) -> bool:
        """Whether the device multiplies matrices that are scaled in small blocks (mxfp8, nvfp4): NVIDIA from compute capability 10."""
        if self._kind_of(device) != "cuda" or getattr(device, "type", "cuda") != "cuda":
            return False
        return torch.cuda.get_device_properties(device).major >= 10

    def maximum_vram_for_weights(self, device: device | None = None) -> float:
        """Bytes of weights that leave room for computing on *device*."""
        entry = self._devices.find(device)
        return entry.total_bytes() * 0.88 - entry.working_bytes()

    def answers(self) -> tuple[bool, ...]:
        """What the compute device decides about dtypes: models built under equal answers are the same."""
        device = self._devices.compute_device()
        asked = [(params, fast, manual) for params in (0, UNKNOWN_PARAMETERS) for fast in (True, False) for manual in (True, False)]
        halves = (self.should_use_fp16, self.should_use_bf16)
        return (self.supports_fp8_compute(device), *(half(device, *question) for half in halves for question in asked))

    def _saves_room(self, device: device | None, model_params: int, prioritize_performance: bool) -> bool:
        return not prioritize_performance or model_params * 4 > self.maximum_vram_for_weights(device)

    def _kind_of(self, device: device | None) -> str:
        return self._devices.kind if device is None else self._devices.find(device).kind

    def _from_flags(self, flags: Sequence[tuple[str, str]]) -> dtype | None:
        return next((getattr(torch, name) for flag, name in flags if getattr(self._args, flag)), None)


def float8_types() -> tuple[dtype, ...]:
    """The 8-bit floating point dtypes of the installed torch."""
    return tuple(getattr(torch, name) for name in FLOAT8_NAMES if hasattr(torch, name))
