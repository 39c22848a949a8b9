"""The RAM model cache in ComfyUI: made from the flags, told what the model manager does, asked by the loaders.

The model manager owns the one object of this module. While the cache is off, every decorator here returns the function it was given, so
nothing of the cache runs: no thread, no strong reference, no extra call.
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import torch

import comfy.memory_management
from comfy.ram_model_cache.cache import CacheSettings, NullRamModelCache, OwnerHooks, RamModelCache
from comfy.ram_model_cache.checksums import WeightChecksums, Weights
from comfy.ram_model_cache.host_memory import HostMemory, default_headroom_bytes
from comfy.ram_model_cache.sizing import settings_from
from comfy.ram_model_cache.storage import is_dynamic
from comfy.ram_model_cache_hooks.loaders import CachedLoaders, Function
from comfy.units import GIB

PENDING_PROMPTS = 64
HISTORY_NAME = "models"
STATS_NAME = "ram_model_cache"
NODE_OUTPUT_HEADROOM_SHARE, NODE_OUTPUT_HEADROOM_LIMIT = 0.10, 10 * GIB


class ModelCacheOwner:
    """What the cache asks of the model manager, and the decorators that tell the cache what happens.

    *settings* None: off. *loaded_models* is the manager's own list. *element_bytes* is what a weight takes on the device at least.
    """

    def __init__(
        self,
        settings: CacheSettings | None,
        loaded_models: list[Any],
        raise_if_interrupted: Callable[[], None],
        element_bytes: int = 0,
        memory: HostMemory | None = None,
    ) -> None:
        self._loaded_models = loaded_models
        self._checksums = WeightChecksums(_weights_on_the_host)
        self._queue: Any = None
        self._names: OrderedDict[Any, frozenset[str]] = OrderedDict()
        self.cache: RamModelCache | NullRamModelCache = NullRamModelCache()
        self.loaders: CachedLoaders | None = None
        if settings is not None:
            hooks = OwnerHooks(
                (memory or HostMemory()).available_bytes,
                self.forget_loaded,
                self.restore_base,
                deactivate_pins,
                self.pending_paths,
                raise_if_interrupted,
            )
            self.cache = RamModelCache(settings, hooks)
            self.loaders = CachedLoaders(self.cache, element_bytes, _loads_lazily, self.note_loaded)

    @classmethod
    def from_args(cls, args: Namespace, loaded_models: list[Any], raise_if_interrupted: Callable[[], None]) -> ModelCacheOwner:
        """The cache that the command line asks for; none without a flag."""
        memory = HostMemory()
        settings = settings_from(args, memory, False, _headroom_bytes(args, memory.view().total_bytes))
        return cls(settings, loaded_models, raise_if_interrupted, 4 if args.cpu else 0, memory)

    # What the cache asks

    def note_loaded(self, patcher: Any) -> None:
        """Remember the weights of *patcher* as they are, for :meth:`restore_base`; those of a dynamic one are still in their file."""
        if not is_dynamic(patcher):
            self._checksums.note(patcher)

    def forget_loaded(self, loaded_model: Any) -> None:
        """Take *loaded_model* off the manager's list and detach its finalizer; does nothing the second time."""
        finalizer, loaded_model.model_finalizer = loaded_model.model_finalizer, None
        if finalizer is not None:
            finalizer.detach()
        for index, other in enumerate(self._loaded_models):
            if other is loaded_model:
                del self._loaded_models[index]
                return

    def restore_base(self, patcher: Any) -> None:
        """Undo what clones left in the module of *patcher*, and raise ``RuntimeError`` unless its weights are as they were loaded."""
        if is_dynamic(patcher):
            patcher.unpatch_model(unpatch_weights=False)
            return
        applied = getattr(patcher.model, "current_weight_patches_uuid", None)
        if patcher.backup or patcher.object_patches_backup or patcher.hook_backup or applied not in (None, patcher.patches_uuid):
            patcher.detach(True)
        self._checksums.check(patcher)

    def pending_paths(self) -> tuple[str, ...]:
        """The files that the prompts next in the queue name, of those loaded before, prompt by prompt in the queue's order."""
        if self._queue is None or self.loaders is None:
            return ()
        _, queued = self._queue.get_current_queue_volatile()
        if not queued:
            return ()
        paths: list[str] = []
        for item in sorted(queued, key=lambda item: item[0])[:PENDING_PROMPTS]:
            named = self._names.get(item[1])
            if named is None:
                named = self._names[item[1]] = frozenset(_strings(item[2]))
                while len(self._names) > 2 * PENDING_PROMPTS:
                    self._names.popitem(last=False)
            paths += self.loaders.paths_named(named)
        return tuple(paths)

    # What the manager's functions tell

    def loads(self, load_models_gpu: Function) -> Function:
        """Of ``load_models_gpu``: nothing is dropped meanwhile, and the cache learns what is on a device now, even half of it."""
        if self.loaders is None:
            return load_models_gpu

        @functools.wraps(load_models_gpu)
        def load_noting(models: Any, *args: Any, **kwargs: Any) -> Any:
            with self.cache.critical_section():
                before = {id(loaded_model): loaded_model for loaded_model in self._loaded_models}
                try:
                    return load_models_gpu(models, *args, **kwargs)
                except BaseException:
                    for patcher in models:
                        self.cache.remeasure(SimpleNamespace(model=patcher))
                    raise
                finally:
                    for loaded_model in list(self._loaded_models):
                        if id(loaded_model) not in before:
                            self.cache.reclaim(loaded_model)

        return load_noting

    def unloads(self, free_memory: Function) -> Function:
        """Of ``free_memory``, which returns the models it took off their device: they stay in RAM."""
        if self.loaders is None:
            return free_memory

        @functools.wraps(free_memory)
        def free_noting(*args: Any, **kwargs: Any) -> Any:
            with self.cache.critical_section():
                unloaded = free_memory(*args, **kwargs)
                for loaded_model in unloaded:
                    self.cache.retain(loaded_model)
                return unloaded

        return free_noting

    def undisturbed(self, function: Function) -> Function:
        """Of functions that walk the manager's list by index: nothing is dropped meanwhile."""
        if self.loaders is None:
            return function

        @functools.wraps(function)
        def run_undisturbed(*args: Any, **kwargs: Any) -> Any:
            with self.cache.critical_section():
                return function(*args, **kwargs)

        return run_undisturbed

    # What the executor tells

    def after_node(self, execute: Function) -> Function:
        """Of the executor's coroutine that runs one node: once it is done is when bases are restored and RAM is given back."""
        if self.loaders is None:
            return execute

        @functools.wraps(execute)
        async def execute_node(*args: Any, **kwargs: Any) -> Any:
            try:
                return await execute(*args, **kwargs)
            finally:
                self.cache.safe_point()

        return execute_node

    def with_receipts(self, execute_async: Function) -> Function:
        """Of ``PromptExecutor.execute_async``: the prompt's history gets one receipt per model it used."""
        if self.loaders is None:
            return execute_async

        @functools.wraps(execute_async)
        async def execute_prompt(executor: Any, prompt: Any, prompt_id: str, *args: Any, **kwargs: Any) -> Any:
            self.cache.begin_prompt(prompt_id)
            before = getattr(executor, "history_result", None)
            try:
                return await execute_async(executor, prompt, prompt_id, *args, **kwargs)
            finally:
                receipts = self.cache.end_prompt(prompt_id)
                history: Any = getattr(executor, "history_result", None)
                if receipts and history is not before:
                    history[HISTORY_NAME] = receipts
                self.cache.safe_point()

        return execute_prompt

    def watch_queue(self, queue: Any) -> None:
        """Models that the prompts in *queue* name are evicted last."""
        self._queue = queue

    def clear(self) -> None:
        """Let go of every model that nobody uses."""
        self.cache.clear()

    def system_stats(self) -> dict[str, Any]:
        """The entry for the ``system`` section of ``/system_stats``, sizes in bytes; none while the cache is off."""
        stats = self.cache.stats()
        if stats is None:
            return {}
        return {STATS_NAME: {"cap": stats.cap_bytes, "kept": stats.kept_bytes, "models": stats.kept, **asdict(stats.counters)}}

    # The loaders

    def checkpoint(self, load: Function) -> Function:
        """Of ``load_checkpoint_guess_config``."""
        return load if self.loaders is None else self.loaders.checkpoint(load)

    def text_encoder(self, load: Function) -> Function:
        """Of ``load_clip``."""
        return load if self.loaders is None else self.loaders.text_encoder(load)

    def diffusion_model(self, load: Function) -> Function:
        """Of ``load_diffusion_model``."""
        return load if self.loaders is None else self.loaders.diffusion_model(load)

    def clip_vision(self, load: Function) -> Function:
        """Of ``clip_vision.load``."""
        return load if self.loaders is None else self.loaders.clip_vision(load)

    def controlnet(self, load: Function) -> Function:
        """Of ``load_controlnet``."""
        return load if self.loaders is None else self.loaders.controlnet(load)

    def vae_node(self, full_path: Callable[[str, str], str | None]) -> Callable[[Function], Function]:
        """Of the node method ``VAELoader.load_vae``."""
        return (lambda load: load) if self.loaders is None else self.loaders.vae_node(full_path)


def deactivate_pins(patcher: Any) -> None:
    """Leave the pinned memory of a dynamic *patcher* to whoever needs it next: the pin budget takes from inactive models first."""
    for pin_state in getattr(patcher.model, "dynamic_pins", {}).values():
        pin_state["active"] = False


def _loads_lazily() -> bool:
    return bool(getattr(comfy.memory_management, "aimdo_enabled", False))


def _weights_on_the_host(patcher: Any) -> Weights:
    """Each parameter by name; None for one that is on a device now, has a class of its own or is empty. Buffers may change."""
    for name, tensor in patcher.model.named_parameters():
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        can_be_looked_at = plain and tensor.device.type == "cpu" and tensor.numel() and tensor.layout == torch.strided
        yield name, tensor if can_be_looked_at else None


def _headroom_bytes(args: Namespace, total_bytes: int) -> int:
    """RAM to leave free: never less than below which the executor gives up the running prompt's results."""
    asked = args.cache_ram if isinstance(args.cache_ram, list | tuple) else [args.cache_ram]
    asked_bytes = int(max([0.0, *asked[:1]]) * GIB)
    usual_bytes = min(NODE_OUTPUT_HEADROOM_LIMIT, int(total_bytes * NODE_OUTPUT_HEADROOM_SHARE))
    return max(default_headroom_bytes(total_bytes), usual_bytes, asked_bytes)


def _strings(prompt: Any) -> Iterator[str]:
    """The texts given as inputs in *prompt*, with forward slashes."""
    for node in prompt.values():
        for value in node.get("inputs", {}).values():
            if isinstance(value, str):
                yield value.replace("\\", "/")
