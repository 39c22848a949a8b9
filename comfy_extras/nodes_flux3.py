"""Nodes for Flux.3: pictures to look at, for both sides of guidance at once, and prompts that say where things are.

ComfyUI's templates use them; the form of such prompts is the one that the model's authors describe.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import node_helpers
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent
from comfy_extras.fitted_pictures import with_area
from comfy_extras.flux2_nodes import CHANNELS, PIXELS_PER_CELL
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning

MOST_PICTURES = 10  # that the model was trained with
MEGAPIXEL_SIDE = 1024
_SEEN = re.compile(r"<ref_image_\d+>")


class ReferenceMultiLatent(io.ComfyNode):
    """Gives an edit model pictures to look at, and an empty latent of the first one's size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        pictures = io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=0, max=MOST_PICTURES)
        area = io.Float.Input("megapixels", default=1.0, min=0.05, max=16.0, step=0.05, tooltip="Of 1024 × 1024 pixels.")
        sizes = [io.DynamicCombo.Option("resize", [area]), io.DynamicCombo.Option("native", [])]
        both = [io.Conditioning.Output(display_name=side) for side in ("positive", "negative")]
        return io.Schema(
            node_id="ReferenceMultiLatent",
            display_name="Set Reference Multi Latent",
            category="model/conditioning",
            description="Gives an edit model pictures to look at, on both sides of guidance, and an empty latent of the first one's size.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative", optional=True, tooltip="Left out, the positive one stands for it."),
                io.Vae.Input("vae", optional=True, tooltip="Needed where there are pictures."),
                io.Autogrow.Input("images", optional=True, template=pictures, tooltip="A batch counts as so many pictures."),
                io.DynamicCombo.Input("resolution", options=sizes, tooltip="The size in which the model looks at pictures."),
            ],
            outputs=[*both, io.Latent.Output(display_name="empty_latent")],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        resolution: dict[str, Any],
        negative: Conditioning | None = None,
        vae: VAE | None = None,
        images: dict[str, Tensor | None] | None = None,
    ) -> io.NodeOutput:
        """Both sides with the latents of all pictures behind the ones they have. Without pictures the empty latent is a square.

        Raises ``ValueError`` for pictures without an autoencoder.
        """
        batches = (image for _, image in sorted((images or {}).items(), key=_number) if image is not None)
        shown = [_sized(picture[..., :3], resolution) for batch in batches for picture in batch.split(1)]
        if shown and vae is None:
            raise ValueError("ReferenceMultiLatent has pictures but no vae to encode them with; connect one")
        sides = [positive, positive if negative is None else negative]
        if shown and vae is not None:
            latents = {"reference_latents": [vae.encode(picture) for picture in shown]}
            sides = [node_helpers.conditioning_set_values(side, latents, append=True) for side in sides]
        height, width = shown[0].shape[1:3] if shown else (MEGAPIXEL_SIDE, MEGAPIXEL_SIDE)
        return io.NodeOutput(*sides, empty_latent(1, CHANNELS, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL))


def _number(named: tuple[str, Any]) -> int:
    """Which of the pictures that grow it is."""
    return int(re.sub(r"\D", "", named[0]) or 0)


def _sized(picture: Tensor, resolution: dict[str, Any]) -> Tensor:
    """*picture* (1 x H x W x C) in the size that is asked for; in its own, what exceeds whole cells is cut off all around."""
    if resolution.get("resolution") != "native":
        return with_area(picture, round(MEGAPIXEL_SIDE * float(resolution.get("megapixels", 1.0)) ** 0.5), PIXELS_PER_CELL)
    kept = picture
    for axis, size in enumerate(picture.shape[1:3], 1):
        whole = size // PIXELS_PER_CELL * PIXELS_PER_CELL
        if whole == 0:
            raise ValueError(f"a picture of {picture.shape[2]} x {picture.shape[1]} pixels is smaller than {PIXELS_PER_CELL}; resize it")
        kept = kept.narrow(axis, (size - whole) // 2, whole)
    return kept


class Flux3LayoutPrompt(io.ComfyNode):
    """Writes a prompt for Flux.3 with a table of where things are."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        how = "Name the boxes where they are spoken of: <obj_1>, <obj_2> …; pictures to look at are <ref_image_0>, <ref_image_1> …"
        return io.Schema(
            node_id="Flux3LayoutPrompt",
            display_name="Flux 3 Layout Prompt",
            category="model/conditioning/flux",
            description="Puts the table of the boxes' places behind a prompt, as Flux.3 was trained with them.",
            inputs=[
                io.Array.Input("element", tooltip="The elements of Create Bounding Boxes."),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, default="", tooltip=how),
            ],
            outputs=[io.String.Output(display_name="prompt")],
        )

    @classmethod
    def execute(cls, element: Any, prompt: str) -> io.NodeOutput:
        """*prompt*, a space and the table in JSON; without elements, *prompt*."""
        return io.NodeOutput(layout_prompt(prompt, element or []))


def layout_prompt(prompt: str, elements: Any) -> str:
    """*prompt* with the rows of *elements* (dicts with ``bbox`` in thousandths, ``desc``, ``type`` and ``text``), the first obj_1.

    Where it speaks of a picture to look at, a row says where the result has what is made; else where the picture has it. Boxes that no
    place of the prompt names are named at its end, as each has to be. Raises ``ValueError`` for what is no element.
    """
    if not isinstance(elements, list):
        raise ValueError(
            f"Flux3LayoutPrompt takes a list of elements, got {type(elements).__name__}; connect those of Create Bounding Boxes"
        )
    words, is_edit, rows = prompt.strip(), _SEEN.search(prompt) is not None, []
    for number, element in enumerate(elements, 1):
        name = f"obj_{number}"
        box = element.get("bbox") if isinstance(element, dict) else None
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise ValueError(f"element {number} of Flux3LayoutPrompt has no bbox [ymin, xmin, ymax, xmax]: {element!r:.120}")
        place = {"from": None, "src_bbox": None, "tgt_bbox": list(box)} if is_edit else {"bbox": list(box)}
        rows.append({"id": name, **place, "desc": _described(element)})
        if f"<{name}>" not in words:
            words = f"{words} <{name}>".strip()
    return f"{words} {json.dumps(rows, ensure_ascii=False)}" if rows else words


def _described(element: dict[str, Any]) -> str:
    """What an element is; of one that is to be read, its words first."""
    described = str(element.get("desc") or "")
    if element.get("type") != "text":
        return described
    words = f'"{element.get("text") or ""}"'
    return f"{words}, {described}" if described else words


comfy_entrypoint = extension_of(ReferenceMultiLatent, Flux3LayoutPrompt)
