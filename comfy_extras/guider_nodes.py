"""Nodes that make a GUIDER, which combines a model's predictions for several conditionings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import comfy.samplers
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")

GUIDERS = "model/sampling/guiders"


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


GUIDER_NODES: list[type[io.ComfyNode]] = [CFGOverride, CFGGuider, DualCFGGuider, BasicGuider]
