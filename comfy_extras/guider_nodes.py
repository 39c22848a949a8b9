"""Nodes that make a GUIDER, which combines a model's predictions for several conditionings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")

GUIDERS = "model/sampling/guiders"
BESIDE = "model of the negative side"


def _cfg(name: str = "cfg", default: float = 8.0) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=100.0, step=0.1, round=0.01)


def _percent(name: str, default: float) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001)


class Guider_Basic(comfy.samplers.CFGGuider):  # noqa: N801 - the name packs import
    """A guider with one conditioning and no guidance."""

    def set_conds(self, positive: Any) -> None:  # type: ignore[override]  # ComfyUI's signature
        """Set the conditioning."""
        self.inner_set_conds({"positive": positive})


class Guider_DualCFG(comfy.samplers.CFGGuider):  # noqa: N801 - the name packs import
    """A guider between three conditionings."""

    def set_cfg(self, cfg1: float, cfg2: float, nested: bool = False) -> None:  # type: ignore[override]  # ComfyUI's signature
        """Set the scales: *cfg1* between the first two conditionings, *cfg2* away from the negative one."""
        self.cfg1, self.cfg2, self.nested = cfg1, cfg2, nested

    def set_conds(self, positive: Any, middle: Any, negative: Any) -> None:  # type: ignore[override]  # ComfyUI's signature
        """Set all three."""
        middle = node_helpers.conditioning_set_values(middle, {"prompt_type": "negative"})
        self.inner_set_conds({"positive": positive, "middle": middle, "negative": negative})

    def predict_noise(self, x: Any, timestep: Any, model_options: dict[str, Any] | None = None, seed: int | None = None) -> Any:
        """The guided denoised latent. Sides that do not count at these scales are not computed."""
        options = {} if model_options is None else model_options
        negative, middle, positive = (self.conds.get(name) for name in ("negative", "middle", "positive"))
        if not self.nested and not options.get("disable_cfg1_optimization", False) and math.isclose(self.cfg2, 1.0):
            negative = None
            middle = None if math.isclose(self.cfg1, 1.0) else middle
        base, between, full = comfy.samplers.calc_cond_batch(self.inner_model, [negative, middle, positive], x, timestep, options)
        if self.nested:
            inner = comfy.samplers.cfg_function(
                self.inner_model, full, between, self.cfg1, x, timestep, model_options=options, cond=positive, uncond=middle
            )
            return base + self.cfg2 * (inner - base)
        outer = comfy.samplers.cfg_function(
            self.inner_model, between, base, self.cfg2, x, timestep, model_options=options, cond=middle, uncond=negative
        )
        return outer + (full - between) * self.cfg1


class Guider_DualModel(comfy.samplers.CFGGuider):  # noqa: N801 - the name packs import
    """A guider whose negative side is computed by another model, which is loaded beside the first while it samples."""

    model_patcher: ModelPatcher

    def __init__(self, model_patcher: ModelPatcher, uncond_model_patcher: ModelPatcher) -> None:
        """Of one module with other patches for each side, a second one is loaded. Raises ``RuntimeError`` when that is not possible."""
        super().__init__(model_patcher)
        if model_patcher.is_clone(uncond_model_patcher) and not model_patcher.clone_has_same_weights(uncond_model_patcher):
            uncond_model_patcher = uncond_model_patcher.clone(force_deepcopy=True)
        self.uncond_model_patcher = uncond_model_patcher
        self.uncond_inner: Any = None
        self._negative: Any = None

    def outer_sample(self, noise: Any, *args: Any, **kwargs: Any) -> Any:
        """Sample with both models loaded; at a scale of 1 with the first alone."""
        self.uncond_inner = None
        if math.isclose(self.cfg, 1.0):
            return super().outer_sample(noise, *args, **kwargs)
        first, other = self.model_patcher, self.uncond_model_patcher
        conds = {"negative": [cond.copy() for cond in self.conds["negative"]]}
        self.uncond_inner, conds, loaded = comfy.sampler_helpers.prepare_sampling(other, noise.shape, conds, other.model_options)
        self._negative = conds["negative"]
        other.pre_run()
        self.model_patcher = first.clone()
        self.model_patcher.set_additional_models(BESIDE, [other])  # so that loading the first does not evict the other
        try:
            return super().outer_sample(noise, *args, **kwargs)
        finally:
            other.cleanup()
            comfy.sampler_helpers.cleanup_models(conds, loaded)
            self.model_patcher, self.uncond_inner, self._negative = first, None, None

    def inner_sample(
        self,
        noise: Any,
        latent_image: Any,
        device: Any,
        sampler: Any,
        sigmas: Any,
        denoise_mask: Any,
        callback: Any,
        disable_pbar: bool,
        seed: int | None,
        latent_shapes: Any = None,
    ) -> Any:
        """Sample; the negative conditioning is prepared for the other model."""
        if self.uncond_inner is not None:
            latent = latent_image
            if latent is not None and torch.count_nonzero(latent) > 0:  # zeros stay zeros in either scale
                latent = self.uncond_inner.process_latent_in(latent)
            conds = {"negative": self._negative}
            self._negative = comfy.samplers.process_conds(
                self.uncond_inner, noise, conds, device, latent, denoise_mask, seed, latent_shapes=latent_shapes
            )["negative"]
        common = (noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)
        return super().inner_sample(*common, latent_shapes=latent_shapes)

    def predict_noise(self, x: Any, timestep: Any, model_options: dict[str, Any] | None = None, seed: int | None = None) -> Any:
        """The guided denoised latent; the positive one alone where guidance would not change it."""
        options = {} if model_options is None else model_options
        positive = self.conds.get("positive")
        (cond,) = comfy.samplers.calc_cond_batch(self.inner_model, [positive], x, timestep, options)
        if self.uncond_inner is None or (math.isclose(self.cfg, 1.0) and not options.get("disable_cfg1_optimization", False)):
            return cond
        own_options = {name: value for name, value in options.items() if name != "multigpu_clones"}
        (uncond,) = comfy.samplers.calc_cond_batch(self.uncond_inner, [self._negative], x, timestep, own_options)
        return comfy.samplers.cfg_function(
            self.inner_model, cond, uncond, self.cfg, x, timestep, model_options=options, cond=positive, uncond=self._negative
        )


class BasicGuider(io.ComfyNode):
    """Makes a guider without guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BasicGuider",
            display_name="Basic Guider",
            category=GUIDERS,
            outputs=[io.Guider.Output()],
            inputs=[io.Model.Input("model"), io.Conditioning.Input("conditioning")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, conditioning: Conditioning) -> io.NodeOutput:
        guider = Guider_Basic(model)
        guider.set_conds(conditioning)
        return io.NodeOutput(guider)

    get_guider = execute


class CFGGuider(io.ComfyNode):
    """Makes a guider with classifier-free guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CFGGuider",
            display_name="CFG Guider",
            category=GUIDERS,
            outputs=[io.Guider.Output()],
            inputs=[io.Model.Input("model"), io.Conditioning.Input("positive"), io.Conditioning.Input("negative"), _cfg()],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, positive: Conditioning, negative: Conditioning, cfg: float) -> io.NodeOutput:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)

    get_guider = execute


class DualCFGGuider(io.ComfyNode):
    """Makes a guider between two prompts and a negative one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        conditionings = [io.Conditioning.Input(name) for name in ("cond1", "cond2", "negative")]
        return io.Schema(
            node_id="DualCFGGuider",
            display_name="Dual CFG Guider",
            category=GUIDERS,
            search_aliases=["dual prompt guidance"],
            inputs=[
                io.Model.Input("model"),
                *conditionings,
                _cfg("cfg_conds"),
                _cfg("cfg_cond2_negative"),
                io.Combo.Input("style", options=["regular", "nested"]),
            ],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        cond1: Conditioning,
        cond2: Conditioning,
        negative: Conditioning,
        cfg_conds: float,
        cfg_cond2_negative: float,
        style: str,
    ) -> io.NodeOutput:
        guider = Guider_DualCFG(model)
        guider.set_conds(cond1, cond2, negative)
        guider.set_cfg(cfg_conds, cfg_cond2_negative, nested=style == "nested")
        return io.NodeOutput(guider)

    get_guider = execute


class DualModelGuider(io.ComfyNode):
    """Makes a guider with one model for each side of guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        other = "The model that computes the negative side; left out, the first one does."
        negative = "The negative prompt, for the second model. Left out, that side is computed without a text."
        return io.Schema(
            node_id="DualModelGuider",
            display_name="Dual Model CFG Guider",
            category=GUIDERS,
            inputs=[
                io.Model.Input("model", tooltip="The model that computes the positive side."),
                io.Model.Input("model_negative", optional=True, tooltip=other),
                io.Conditioning.Input("positive"),
                _cfg(default=4.0),
                io.Conditioning.Input("negative", optional=True, tooltip=negative),
            ],
            outputs=[io.Guider.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: Conditioning,
        cfg: float,
        model_negative: ModelPatcher | None = None,
        negative: Conditioning | None = None,
    ) -> io.NodeOutput:
        """The guider."""
        guider = comfy.samplers.CFGGuider(model) if model_negative is None else Guider_DualModel(model, model_negative)
        guider.set_conds(positive, [[None, {}]] if negative is None else negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)

    get_guider = execute


class CFGOverride(io.ComfyNode):
    """Replaces the guidance scale during a part of the sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CFGOverride",
            display_name="CFG Override",
            category=GUIDERS,
            outputs=[io.Model.Output()],
            description="Uses a fixed guidance scale from one share of the sampling to another. Of several, the last counts.",
            inputs=[io.Model.Input("model"), _cfg(default=1.0), _percent("start_percent", 0.0), _percent("end_percent", 1.0)],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, cfg: float, start_percent: float, end_percent: float) -> io.NodeOutput:
        """A clone of *model* for which every guider that has a scale uses *cfg* in this part."""
        sampling = model.get_model_object("model_sampling")
        highest, lowest = sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)

        def with_other_scale(executor: Any, *args: Any, **kwargs: Any) -> Any:
            if not lowest <= float(args[1].flatten()[0]) <= highest:
                return executor(*args, **kwargs)
            guider = executor.class_obj
            own_cfg, guider.cfg = guider.cfg, cfg
            try:
                return executor(*args, **kwargs)
            finally:
                guider.cfg = own_cfg

        clone = model.clone()
        clone.add_wrapper(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, with_other_scale)
        return io.NodeOutput(clone)


GUIDER_NODES: list[type[io.ComfyNode]] = [CFGOverride, CFGGuider, DualCFGGuider, DualModelGuider, BasicGuider]
