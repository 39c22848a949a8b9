"""Nodes that skip steps of a sampling in which little would change (after EasyCache, Zhou et al. 2025, arXiv:2507.02860).

A skipped step takes the difference between output and input from the step that was computed last. EasyCache does so inside the network,
for each conditioning; LazyCache with the guided result.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
from comfy.lazy_import import lazy_module
from comfy.patching.model_options import create_model_options_clone
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of
from comfy_extras.step_estimates import StepEstimate

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")

log = logging.getLogger(__name__)

OPTION = "easycache"  # where in the transformer options a cache is found


class StepCache:
    """Which steps may be skipped, and what is remembered of one sampling; the base of both kinds of caches."""

    name = "StepCache"

    def __init__(self, reuse_threshold: float, start_percent: float, end_percent: float, verbose: bool, output_channels: int) -> None:
        self.settings = (reuse_threshold, start_percent, end_percent, verbose, output_channels)
        self.reuse_threshold, self.verbose, self.output_channels = reuse_threshold, verbose, output_channels
        self.start_percent, self.end_percent = start_percent, end_percent
        self.highest = self.lowest = 0.0
        self.skipped_steps = 0
        self._form: Any = None
        self.forget()

    def patch_identity_key(self) -> tuple[Any, ...]:
        """Its settings: what it remembers belongs to one sampling."""
        return self.settings

    def forget(self) -> None:
        """Let go of all that was remembered of steps."""
        self.estimate = StepEstimate()

    def for_run(self, sampling: Any) -> StepCache:
        """An empty cache with these settings, for a sampling by the schedule *sampling*."""
        fresh = type(self)(*self.settings)
        fresh.highest, fresh.lowest = sampling.percent_to_sigma(self.start_percent), sampling.percent_to_sigma(self.end_percent)
        return fresh

    def is_over(self, sigma: Tensor) -> bool:
        """Whether *sigma* is below the range in which steps are looked at."""
        return not bool(sigma[0] > self.lowest)

    def may_skip(self, sigma: Tensor, x: Tensor, shape: Sequence[int]) -> bool:
        """Whether the step at *sigma* may be skipped. Forgets what was remembered for others than *x*'s *shape*, dtype and device."""
        if not bool(sigma[0] <= self.highest):
            return False
        form = (x.device, x.dtype, tuple(shape))
        if self._form not in (None, form):
            log.warning("%s: the latent's shape, dtype or device changed; what was remembered is let go", self.name)
            self.forget()
        self._form = form
        return True

    def tell(self, text: str, *values: Any) -> None:
        """Log *text*, if that was asked for."""
        if self.verbose:
            log.info("%s: " + text, self.name, *values)


def _fitted(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The end of *x* along each dimension but the first, as long as *shape* (dimensions that are frames of context are first)."""
    ends = (slice(own - wanted if own != wanted else None, None) for own, wanted in zip(x.shape[1:], shape[1:]))
    return x[(slice(None), *ends)]


class EasyCacheHolder(StepCache):
    """The differences between the network's output and input, by the conditioning's id.

    The first conditioning of a sampling decides for all of a step. ``is_skipping`` tells the others of the same step.
    """

    name = "EasyCache"

    def forget(self) -> None:
        super().forget()
        self.first: Any = None
        self.is_skipping = False
        self._differences: list[dict[Any, Tensor]] = []

    def knows(self, ids: Sequence[Any]) -> bool:
        """Whether differences are known for all conditionings *ids*."""
        return bool(self._differences) and all(one in kept for kept in self._differences for one in ids)

    def own(self, x: Tensor, ids: Sequence[Any]) -> Tensor:
        """The part of the batch *x* that belongs to the deciding conditioning."""
        return x.chunk(len(ids))[ids.index(self.first)]

    def output_for(self, parts: Sequence[Tensor], ids: Sequence[Any]) -> list[Tensor]:
        """The outputs for inputs *parts* by the remembered differences."""
        self.skipped_steps += self.first in ids
        outputs = []
        for x, kept in zip(parts, self._differences):
            result = x.clone()
            for chunk, one in zip(result.chunk(len(ids)), ids):
                _fitted(chunk, kept[one].shape).add_(kept[one].to(x.device))
            outputs.append(result)
        return outputs

    def remember(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], ids: Sequence[Any]) -> None:
        """Keep the differences of one call."""
        while len(self._differences) < len(outputs):
            self._differences.append({})
        for output, x, kept in zip(outputs, inputs, self._differences):
            kept.update(zip(ids, (output - _fitted(x, output.shape)).chunk(len(ids))))


class LazyCacheHolder(StepCache):
    """The difference between the guided result and the latent."""

    name = "LazyCache"

    def forget(self) -> None:
        super().forget()
        self.difference: Tensor | None = None


def _parts(data: Any, channels: int) -> list[Tensor]:
    """The tensors of *data*, one or a list (picture and sound), without channels beyond the latent's."""
    return [x[:, :channels] for x in (data if isinstance(data, list) else [data])]


def _cache_in(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[EasyCacheHolder, dict[str, Any]]:
    """The cache among a network's arguments, and the transformer options that hold it."""
    found = (kwargs.get("transformer_options"), *reversed(args))
    options = next(value for value in found if isinstance(value, dict) and OPTION in value)
    return options[OPTION], options


def easycache_forward_wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the network, or give its output as the remembered differences foretell it."""
    cache, options = _cache_in(args, kwargs)
    sigmas, ids = options["sigmas"], list(options["uuids"])
    if sigmas is not None and cache.is_over(sigmas):
        return executor(*args, **kwargs)
    inputs = _parts(args[0], cache.output_channels)
    x = inputs[0]
    if cache.may_skip(sigmas, x, x.shape[1:]):
        can_reuse = cache.knows(ids)
        cache.first = ids[0] if cache.first is None else cache.first
        if cache.first in ids and not (cache.is_skipping and can_reuse):
            cache.is_skipping = cache.estimate.is_small(cache.own(x, ids), cache.reuse_threshold, can_reuse)
            cache.tell("the step is %s; foretold change %s", "skipped" if cache.is_skipping else "computed", cache.estimate.expected)
        if cache.is_skipping and can_reuse:
            outputs = cache.output_for(inputs, ids)
            return outputs if isinstance(args[0], list) else outputs[0]
    result = executor(*args, **kwargs)
    outputs = _parts(result, cache.output_channels)
    if cache.first is not None and cache.first in ids:
        changed = cache.estimate.observe(cache.own(x, ids), cache.own(outputs[0], ids))
        cache.tell("the output changed by %s", changed)
    cache.remember(outputs, inputs, ids)
    return result


def lazycache_predict_noise_wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute the guided result, or give it as the remembered difference foretells it."""
    x, sigma, model_options = args[0], args[1], args[2]
    cache: LazyCacheHolder = model_options["transformer_options"][OPTION]
    if cache.is_over(sigma):
        return executor(*args, **kwargs)
    x = x[:, : cache.output_channels]
    if cache.may_skip(sigma, x, x.shape) and cache.estimate.is_small(x, cache.reuse_threshold, cache.difference is not None):
        cache.skipped_steps += 1
        cache.tell("the step is skipped; foretold change %s", cache.estimate.expected)
        return x + cache.difference
    result = executor(*args, **kwargs)
    cache.tell("the output changed by %s", cache.estimate.observe(x, result))
    cache.difference = result - x
    return result


def easycache_calc_cond_batch_wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Begin a step, in which the first conditioning decides anew."""
    args[-1]["transformer_options"][OPTION].is_skipping = False
    return executor(*args, **kwargs)


def easycache_sample_wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Sample with an empty cache, and say how many steps were skipped."""
    guider = executor.class_obj
    original = guider.model_options
    guider.model_options = create_model_options_clone(original)
    options = guider.model_options["transformer_options"]
    cache = options[OPTION] = options[OPTION].for_run(guider.model_patcher.get_model_object("model_sampling"))
    try:
        return executor(*args, **kwargs)
    finally:
        guider.model_options = original
        steps, skipped = len(args[3]) - 1, cache.skipped_steps
        faster = steps / (steps - skipped) if 0 < skipped < steps else 1.0
        log.info("%s skipped %d of %d steps (%.2f times as fast)", cache.name, skipped, steps, faster)
        cache.forget()


def _schema(name: str, description: str) -> io.Schema:
    def share(which: str, default: float, text: str) -> io.Float.Input:
        return io.Float.Input(which, min=0.0, default=default, max=1.0, step=0.01, tooltip=text, advanced=True)

    threshold = "How much the output may change over steps that are skipped; higher skips more."
    return io.Schema(
        node_id=name,
        display_name=name,
        description=description,
        category="advanced/debug",
        inputs=[
            io.Model.Input("model", tooltip="The model whose steps are skipped."),
            io.Float.Input("reuse_threshold", min=0.0, default=0.2, max=3.0, step=0.01, tooltip=threshold, advanced=True),
            share("start_percent", 0.15, "The share of the sampling after which steps may be skipped."),
            share("end_percent", 0.95, "The share of the sampling after which all steps are computed."),
            io.Boolean.Input("verbose", default=False, tooltip="Whether the log says of each step what was foretold.", advanced=True),
        ],
        outputs=[io.Model.Output(tooltip="The model that skips steps.")],
        is_experimental=True,
    )


def _with_cache(
    model: ModelPatcher, kind: type[StepCache], key: str, wrappers: dict[str, Any], settings: tuple[float, float, float, bool]
) -> ModelPatcher:
    """A clone of *model* with an empty cache and the functions around it."""
    clone = model.clone()
    module: Any = model.model
    clone.model_options["transformer_options"][OPTION] = kind(*settings, output_channels=module.latent_format.latent_channels)
    for place, wrapper in {comfy.patcher_extension.WrappersMP.OUTER_SAMPLE: easycache_sample_wrapper, **wrappers}.items():
        clone.add_wrapper_with_key(place, key, wrapper)
    return clone


class EasyCacheNode(io.ComfyNode):
    """Skips calls of the network."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("EasyCache", "Skips steps in which the model's output would change little, by the network's own outputs.")

    @classmethod
    def execute(cls, model: ModelPatcher, reuse_threshold: float, start_percent: float, end_percent: float, verbose: bool) -> io.NodeOutput:
        """A clone of *model*."""
        places = comfy.patcher_extension.WrappersMP
        wrappers = {places.CALC_COND_BATCH: easycache_calc_cond_batch_wrapper, places.DIFFUSION_MODEL: easycache_forward_wrapper}
        settings = (reuse_threshold, start_percent, end_percent, verbose)
        return io.NodeOutput(_with_cache(model, EasyCacheHolder, "easycache", wrappers, settings))


class LazyCacheNode(io.ComfyNode):
    """Skips whole steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Skips steps in which the guided result would change little. Coarser than EasyCache, and works with every model."
        return _schema("LazyCache", description)

    @classmethod
    def execute(cls, model: ModelPatcher, reuse_threshold: float, start_percent: float, end_percent: float, verbose: bool) -> io.NodeOutput:
        """A clone of *model*."""
        wrappers = {comfy.patcher_extension.WrappersMP.PREDICT_NOISE: lazycache_predict_noise_wrapper}
        settings = (reuse_threshold, start_percent, end_percent, verbose)
        return io.NodeOutput(_with_cache(model, LazyCacheHolder, "lazycache", wrappers, settings))


comfy_entrypoint = extension_of(EasyCacheNode, LazyCacheNode)
