"""Skip-layer guidance for diffusion transformers: away from what the model gives without some of its layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import comfy.samplers
from comfy.patching.model_options import set_model_options_patch_replace
from comfy_api.latest import io
from comfy_extras.model_patch_schema import layers_input, model_patch_schema, share_input
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

CATEGORY = "advanced/guidance"
LAYERS = ("double_layers", "single_layers")


def _skip(args: dict[str, Any], extra_args: dict[str, Any]) -> dict[str, Any]:
    """A block that gives what it gets."""
    return args


class SkippedLayers:
    """The layers to leave out, by the numbers in two texts, and from which noise level down to which."""

    def __init__(self, model: ModelPatcher, double_layers: str, single_layers: str, start_percent: float, end_percent: float) -> None:
        self.blocks = [
            (kind, int(number))
            for kind, text in (("double_block", double_layers), ("single_block", single_layers))
            for number in re.findall(r"\d+", text)
        ]
        sampling = model.get_model_object("model_sampling")
        self.highest, self.lowest = sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)

    def patch_identity_key(self) -> tuple[Any, ...]:
        """All that it holds."""
        return self.blocks, self.highest, self.lowest

    def act_at(self, sigma: Tensor) -> bool:
        """Whether the noise level *sigma* (one per picture) is within the range."""
        return self.lowest <= sigma[0].item() <= self.highest

    def options(self, model_options: dict[str, Any]) -> dict[str, Any]:
        """A copy of *model_options* without the layers."""
        options = model_options.copy()
        for kind, number in self.blocks:
            options = set_model_options_patch_replace(options, _skip, "dit", kind, number)
        return options


class SkipLayerGuidanceDiT(io.ComfyNode):
    """Guides away from the positive prediction without some layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "SkipLayerGuidanceDiT",
            CATEGORY,
            *(layers_input(name) for name in LAYERS),
            io.Float.Input("scale", default=3.0, min=0.0, max=10.0, step=0.1),
            share_input("start_percent", 0.01),
            share_input("end_percent", 0.15),
            io.Float.Input("rescaling_scale", default=0.0, min=0.0, max=10.0, step=0.01),
            description="Guides any diffusion transformer towards detail: away from what it gives without some of its layers.",
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        scale: float,
        start_percent: float,
        end_percent: float,
        double_layers: str = "",
        single_layers: str = "",
        rescaling_scale: float = 0,
    ) -> io.NodeOutput:
        """A clone of *model*, or *model* when no layer is named; steps in the range call it once more."""
        skipped = SkippedLayers(model, double_layers, single_layers, start_percent, end_percent)
        if not skipped.blocks:
            return io.NodeOutput(model)

        def guided(args: dict[str, Any]) -> Tensor:
            result, cond, sigma = args["denoised"], args["cond_denoised"], args["sigma"]
            if scale <= 0 or not skipped.act_at(sigma):
                return result
            options = skipped.options(args["model_options"])
            (without,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], sigma, options)
            result = result + (cond - without) * scale
            if rescaling_scale == 0:
                return result
            return result * (rescaling_scale * (cond.std() / result.std()) + (1 - rescaling_scale))

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(guided)
        return io.NodeOutput(clone)

    skip_guidance = execute


class SkipLayerGuidanceDiTSimple(io.ComfyNode):
    """Leaves layers out of the negative prediction."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "SkipLayerGuidanceDiTSimple",
            CATEGORY,
            *(layers_input(name) for name in LAYERS),
            share_input("start_percent", 0.0),
            share_input("end_percent", 1.0),
            description="Skip-layer guidance without a further call of the model: the negative prediction is made without the layers.",
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, start_percent: float, end_percent: float, double_layers: str = "", single_layers: str = ""
    ) -> io.NodeOutput:
        """A clone of *model*, or *model* when no layer is named."""
        skipped = SkippedLayers(model, double_layers, single_layers, start_percent, end_percent)
        if not skipped.blocks:
            return io.NodeOutput(model)

        def predict(args: dict[str, Any]) -> list[Tensor]:
            inner, x, sigma, options = args["model"], args["input"], args["sigma"], args["model_options"]
            cond, uncond = args["conds"]
            if uncond is None or not skipped.act_at(sigma):
                return comfy.samplers.calc_cond_batch(inner, args["conds"], x, sigma, options)
            positive, _ = comfy.samplers.calc_cond_batch(inner, [cond, None], x, sigma, options)
            _, negative = comfy.samplers.calc_cond_batch(inner, [None, uncond], x, sigma, skipped.options(options))
            return [positive, negative]

        clone = model.clone()
        clone.set_model_sampler_calc_cond_batch_function(predict)
        return io.NodeOutput(clone)

    skip_guidance = execute


comfy_entrypoint = extension_of(SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple)
