"""The node that lets a model's attention skip blocks of keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")
sparse_attention = lazy_module("comfy.ldm.modules.sparse_attention")
minimax = lazy_module("comfy.ldm.minimax.model")

log = logging.getLogger(__name__)

OVERRIDE = "optimized_attention_override"


def block_numbers(text: str) -> frozenset[int]:
    """The numbers that a text such as "0, 1, 47-49" names."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:\s*-\s*(\d+))?", text or ""):
        ends = sorted((int(first), int(last or first)))
        found.update(range(ends[0], ends[1] + 1))
    return frozenset(found)


class BlockSparseAttention(io.ComfyNode):
    """Lets queries see some blocks of keys only."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        tau = io.Float.Input("tau", default=1.3, min=0.0, max=4.0, step=0.05, tooltip="How far a block must stand out; higher is faster.")
        share = io.Float.Input("keep_percent", default=10.0, min=0.5, max=95.0, step=0.5, tooltip="How many of the blocks are seen.")
        methods = {"sol-attn": tau, "sla": share, "vsa": share}
        shares = (("start", 0.2), ("end", 1.0))
        return io.Schema(
            node_id="BlockSparseAttention",
            display_name="Model Sparse Attention",
            category="model/patch",
            is_experimental=True,
            description="Makes long sequences faster: each block of queries sees only the blocks of keys that matter to it.",
            search_aliases=["Block Sparse Attention"],
            inputs=[
                io.Model.Input("model"),
                io.DynamicCombo.Input(
                    "selection",
                    display_name="method",
                    options=[io.DynamicCombo.Option(name, [value]) for name, value in methods.items()],
                    tooltip="sol-attn needs no training; sla and vsa are for models that were trained so (vsa: FastH3).",
                ),
                *(io.Float.Input(f"{end}_percent", default=value, min=0.0, max=1.0, step=0.01) for end, value in shares),
                io.String.Input(
                    "dense_blocks", default="", advanced=True, tooltip='Blocks of the model that stay as they are: "0, 1, 47-49".'
                ),
                io.Int.Input(
                    "min_tokens", default=12288, min=0, max=1 << 20, step=512, advanced=True, tooltip="Shorter ones stay as they are."
                ),
                io.Int.Input(
                    "extra_tokens", default=256, min=0, max=256, step=64, advanced=True, tooltip="Further keys that stand out, not for vsa."
                ),
                io.Combo.Input(
                    "sink_conditioning",
                    options=["exact_kv", "exact_kv_and_rows", "off"],
                    default="exact_kv_and_rows",
                    advanced=True,
                    tooltip="Of MiniMax H3: whether all see the text, what is shown and the sound, and whether the sound sees all.",
                ),
                io.Boolean.Input("verbose", default=False, advanced=True, tooltip="Tell in the log what is computed how."),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        selection: Mapping[str, Any],
        start_percent: float,
        end_percent: float,
        dense_blocks: str = "",
        min_tokens: int = 12288,
        extra_tokens: int = 0,
        sink_conditioning: str = "exact_kv_and_rows",
        verbose: bool = False,
    ) -> io.NodeOutput:
        """A clone that computes so. Raises ``ValueError`` for "vsa" and another model than MiniMax H3."""
        method = selection["selection"]
        network: Any = model.get_model_object("diffusion_model")
        if method == "vsa" and not isinstance(network, minimax.MiniMaxH3Model):
            raise ValueError("vsa is for MiniMax H3 models; choose sol-attn for this one")
        if method == "vsa" and network.blocks[0].attn.to_gate_compress is None:
            log.warning("This MiniMax H3 was not trained for vsa (it has no to_gate_compress); pictures may be worse")
        sampling: Any = model.get_model_object("model_sampling")
        clone = model.clone()
        options = clone.model_options["transformer_options"]
        options[OVERRIDE] = sparse_attention.SparseAttention(
            method,
            float(selection.get("tau", 0.0)),
            float(selection.get("keep_percent", 0.0)) / 100,
            float(sampling.percent_to_sigma(start_percent)),
            float(sampling.percent_to_sigma(end_percent)),
            min_tokens,
            block_numbers(dense_blocks),
            sink_conditioning,
            extra_tokens,
            verbose,
            options.get(OVERRIDE),
        )
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(BlockSparseAttention)
