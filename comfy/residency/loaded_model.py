"""One model on a device, as the list of loaded models knows it: by weak references only."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from comfy.residency.fetching import FETCHER
from comfy.wrapper_tensors import stored_bytes

if TYPE_CHECKING:
    from comfy.residency.protocols import Patcher

EVERYTHING = 1e32  # what upstream's callers pass for "as much as there is"


class LoadedModel:
    """A patcher and its module on a device. It keeps neither alive.

    When the patcher dies, this speaks for the nearest ancestor that lives (``patcher.parent`` …): clones share the module.
    ``model_finalizer`` notes the module's death in *ended*; whoever takes this off the list detaches it, once.
    Owned and used by the thread that loads models.
    """

    def __init__(self, model: Patcher, ended: deque[None] | None = None) -> None:
        self._patchers: tuple[weakref.ref[Patcher], ...] = _lineage(model)
        self._ended: deque[None] = deque(maxlen=1) if ended is None else ended
        self.device = model.load_device
        self.real_model: weakref.ref[Any] | None = None
        self.currently_used = True
        self.model_finalizer: weakref.finalize | None = None

    @property
    def model(self) -> Any:
        """The patcher, or the nearest living ancestor, or None."""
        for position, reference in enumerate(self._patchers):
            patcher = reference()
            if patcher is not None:
                if position:
                    self._patchers = self._patchers[position:]
                    self.device = patcher.load_device
                return patcher
        return None

    def model_memory(self) -> int:
        """Bytes of all weights."""
        return self.model.model_size()

    def model_loaded_memory(self) -> int:
        """Bytes of the weights that are on the device."""
        return self.model.loaded_size()

    def model_offloaded_memory(self) -> int:
        """Bytes of the weights that stayed on the host."""
        return self.model.model_size() - self.model.loaded_size()

    def model_memory_required(self, device: Any) -> int:
        """Bytes that loading to *device* would add there."""
        return self.model_offloaded_memory() if device == self.model.current_loaded_device() else self.model_memory()

    def largest_layer_bytes(self) -> int:
        """Bytes of the largest layer that can be fetched from the host at each call."""
        layers = (module for module in self.model.model.modules() if hasattr(module, "comfy_cast_weights"))
        return max((sum(map(stored_bytes, layer.parameters(recurse=False))) for layer in layers), default=0)

    def pending_bytes(self) -> int:
        """Bytes of the device that its calls will take for streamed layers, and have not taken yet."""
        module = self.model.model
        fetcher = vars(module).get(FETCHER)
        planned: int = module.model_offload_buffer_memory
        return max(0, planned - (0 if fetcher is None else fetcher.size_bytes()))

    def model_load(self, lowvram_model_memory: float = 0, force_patch_weights: bool = False) -> Any:
        """Bring the weights to the device, at most *lowvram_model_memory* bytes more (0: all). Returns the module.

        Raises what the copy raises; the patcher has undone its work then.
        """
        patcher = self.model
        patcher.model_patches_to(self.device)
        patcher.model_patches_to(patcher.model_dtype())
        self.model_use_more_vram(lowvram_model_memory or EVERYTHING, force_patch_weights=force_patch_weights)
        module = patcher.model
        self.real_model = weakref.ref(module)
        self.model_finalizer = weakref.finalize(module, self._ended.append, None)
        self.model_finalizer.atexit = False
        return module

    def should_reload_model(self, force_patch_weights: bool = False) -> bool:
        """Whether weights are patched at each call that the caller wants patched in place."""
        return bool(force_patch_weights and self.model.lowvram_patch_counter() > 0)

    def model_unload(self, memory_to_free: float | None = None, unpatch_weights: bool = True) -> bool:
        """Take weights off the device: at least *memory_to_free* bytes if a part is enough, else all.

        Returns whether the model has left the device entirely; only then is the finalizer detached.
        """
        patcher = self.model
        if memory_to_free is not None and memory_to_free < patcher.loaded_size():
            freed_bytes = patcher.partially_unload(patcher.offload_device, memory_to_free)
            if freed_bytes >= memory_to_free:
                return False
        patcher.detach(unpatch_weights)
        self.release()
        return True

    def release(self) -> None:
        """Forget the module: detach the finalizer. For whoever takes this off the list."""
        if self.model_finalizer is not None:
            self.model_finalizer.detach()
        self.model_finalizer = None
        self.real_model = None

    def model_use_more_vram(self, extra_memory: float, force_patch_weights: bool = False) -> float:
        """Load up to *extra_memory* bytes more (negative: give back). Returns the bytes added."""
        return self.model.partially_load(self.device, extra_memory, force_patch_weights=force_patch_weights)

    def has_ended(self) -> bool:
        """Whether a module was loaded and is gone."""
        return self.real_model is not None and self.real_model() is None

    def is_dead(self) -> bool:
        """Whether the module lives although no patcher for it does: something leaked a reference."""
        return self.real_model is not None and self.real_model() is not None and self.model is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoadedModel) and self.model is other.model

    __hash__ = None  # type: ignore[assignment]


def _lineage(patcher: Patcher | None) -> tuple[weakref.ref[Patcher], ...]:
    chain = []
    while patcher is not None:
        chain.append(weakref.ref(patcher))
        patcher = getattr(patcher, "parent", None)
    return tuple(chain)
