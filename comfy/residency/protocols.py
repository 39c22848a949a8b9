"""What residency needs of models, and of the module whose names node packs replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, device, dtype


class Patcher(Protocol):
    """A ``ModelPatcher`` as the model manager sees it: a module, what patches change in it, and where its weights lie. Sizes in bytes."""

    model: Any  # the torch module, with the attributes that ComfyUI hangs on it
    clone_base_uuid: Any  # the same for all clones of a base
    load_device: device
    offload_device: device

    def model_size(self) -> int:
        """All weights."""

    def loaded_size(self) -> int:
        """The weights that are on the device."""

    def model_dtype(self) -> dtype | None:
        """The dtype that the module computes in; None where it does not say."""

    def current_loaded_device(self) -> device:
        """Where the loaded weights are."""

    def model_patches_to(self, target: Any) -> None:
        """Move, or convert, what patches hold besides weights to a device or dtype."""

    def model_patches_models(self) -> Sequence[Patcher]:
        """Further models that the patches need."""

    def get_nested_additional_models(self) -> Iterable[Patcher]:
        """Models attached to this one, and those attached to them."""

    def is_clone(self, other: Any) -> bool:
        """Whether *other* computes the same module."""

    def lowvram_patch_counter(self) -> int:
        """How many weights are patched at each call."""

    def partially_load(self, device_to: device, extra_memory: float = 0, force_patch_weights: bool = False) -> float:
        """Load up to *extra_memory* bytes more; returns the bytes added."""

    def partially_unload(self, device_to: device, memory_to_free: float = 0) -> float:
        """Take at least *memory_to_free* bytes off the device if there are as many; returns the bytes freed."""

    def detach(self, unpatch_all: bool = True) -> Any:
        """Take the module off the device; *unpatch_all* also puts the pristine weights back."""

    def pristine_weights(self) -> Iterable[Tensor]:
        """The weights as they were loaded, without patches."""


class Names(Protocol):
    """``comfy.model_management``. Whoever is given it looks these up at each call, so that what a node pack has put there counts."""

    def get_torch_device(self) -> device:
        """The device models are loaded to."""

    def get_all_torch_devices(self, exclude_current: bool = False) -> list[device]:
        """Every device models may be loaded to."""

    def get_free_memory(self, dev: device | None = None, torch_free_too: bool = False) -> Any:
        """Bytes that can still be allocated."""

    def get_total_memory(self, dev: device | None = None, torch_total_too: bool = False) -> Any:
        """Bytes of the device's memory."""

    def get_torch_device_name(self, device: device) -> str:
        """One line that names the device."""

    def should_use_fp16(
        self, device: device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
    ) -> bool:
        """Whether half precision is right and worth it."""

    def device_supports_non_blocking(self, device: device | None) -> bool:
        """Whether copies to *device* may be queued."""

    def cpu_mode(self) -> bool:
        """Whether the processor computes."""

    def mps_mode(self) -> bool:
        """Whether Apple's graphics cores compute."""

    def is_nvidia(self) -> bool:
        """Whether NVIDIA cards compute."""

    def is_amd(self) -> bool:
        """Whether AMD cards compute."""

    def is_intel_xpu(self) -> bool:
        """Whether Intel cards compute."""

    def pytorch_attention_enabled(self) -> bool:
        """Whether memory estimates may count on fused attention."""

    def unload_all_models(self) -> None:
        """Move every model off every device."""

    def soft_empty_cache(self, force: bool = False) -> None:
        """Give cached memory back to the system."""
