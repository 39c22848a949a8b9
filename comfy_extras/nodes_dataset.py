"""Nodes for datasets of pictures, videos and texts: reading and writing folders, changing and sorting lists, buckets by resolution."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io
from comfy_extras.dataset_files import FILE_NODES
from comfy_extras.dataset_pictures import PICTURE_NODES
from comfy_extras.dataset_texts import TEXT_NODES
from comfy_extras.dataset_videos import VIDEO_NODES

if TYPE_CHECKING:
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")
log = logging.getLogger(__name__)


class ResolutionBucket(io.ComfyNode):
    """Joins latents of equal size, and their conditionings, to batches."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ResolutionBucket",
            display_name="Resolution Bucket",
            category="model/training",
            description="Joins latents of equal size, and their conditionings, to batches.",
            search_aliases=["bucket by resolution", "group by resolution", "batch by resolution"],
            is_experimental=True,
            is_input_list=True,
            inputs=[
                io.Latent.Input("latents", tooltip="Latents of several sizes."),
                io.Conditioning.Input("conditioning", tooltip="One for each latent."),
            ],
            outputs=[
                io.Latent.Output(display_name="latents", is_output_list=True, tooltip="A batch for each size."),
                io.Conditioning.Output(display_name="conditioning", is_output_list=True, tooltip="Its conditionings."),
            ],
        )

    @classmethod
    def execute(cls, latents: list[Latent], conditioning: list[Conditioning]) -> io.NodeOutput:
        """A batch of latents and a list of conditionings for each height and width. Raises ``ValueError`` when not each latent has one."""
        if len(latents) != len(conditioning):
            raise ValueError(f"{len(latents)} latents, but {len(conditioning)} conditionings: give one for each latent")
        buckets: dict[tuple[int, ...], list[tuple[Any, Any]]] = {}
        for latent, conditions in zip(latents, conditioning):
            if len(latent["samples"]) > len(conditions):
                raise ValueError(f"a latent has {len(latent['samples'])} samples, but its conditioning only {len(conditions)}")
            for sample, condition in zip(latent["samples"], conditions):
                buckets.setdefault(tuple(sample.shape[-2:]), []).append((sample, condition))
        log.info("Latents by size: %s", ", ".join(f"{height}x{width}: {len(pairs)}" for (height, width), pairs in buckets.items()))
        batches = [{"samples": torch.stack([sample for sample, _ in pairs])} for pairs in buckets.values()]
        return io.NodeOutput(batches, [[condition for _, condition in pairs] for pairs in buckets.values()])


class DatasetExtension(ComfyExtension):
    """The nodes of this module and its parts."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [*FILE_NODES, *PICTURE_NODES, *TEXT_NODES, *VIDEO_NODES, ResolutionBucket]


async def comfy_entrypoint() -> DatasetExtension:
    """What the server loads."""
    return DatasetExtension()
