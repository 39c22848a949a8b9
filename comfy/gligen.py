"""GLIGEN: a text for a box of the picture, by further layers in each transformer block of Stable Diffusion.

Y. Li et al., "GLIGEN: Open-Set Grounded Text-to-Image Generation" (2023).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import comfy.ops
from comfy.ldm.modules.attention import CrossAttention, FeedForward
from comfy.loading.add_ons import load_add_on
from comfy.placeholders import placeholders

MOST_BOXES = 30
PARTS = ("input_blocks", "middle_block", "output_blocks")
FIRST_GENERATION = 768  # width of the text of Stable Diffusion 1, whose layers have eight heads
HEADS, HEAD_WIDTH = 8, 64
FREQUENCIES, HOTTEST = 8, 100.0
Box = tuple[torch.Tensor, int, int, int, int]  # pooled text (1 x width), height, width, y and x in cells of the latent
Patch = Callable[[torch.Tensor, Mapping[str, Any]], torch.Tensor]


class GatedSelfAttentionDense(torch.nn.Module):
    """Attention over the picture and the boxes, and a feed-forward, each added as strongly as it was trained to be."""

    scale = 1.0  # packs change how strongly all of it is added

    def __init__(self, query_dim: int, context_dim: int, n_heads: int, d_head: int) -> None:
        super().__init__()
        ops = comfy.ops.manual_cast
        self.linear = ops.Linear(context_dim, query_dim)
        self.attn = CrossAttention(query_dim, query_dim, n_heads, d_head, operations=ops)
        self.ff = FeedForward(query_dim, glu=True, operations=ops)
        self.norm1, self.norm2 = ops.LayerNorm(query_dim), ops.LayerNorm(query_dim)
        self.alpha_attn, self.alpha_dense = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, x: torch.Tensor, objs: torch.Tensor) -> torch.Tensor:
        """*x* B x positions x width, *objs* B x boxes x width of their embedding."""
        both = self.norm1(torch.cat([x, self.linear(objs)], dim=1))
        x = x + self._gate(self.alpha_attn, x) * self.attn(both)[:, : x.shape[1]]
        return x + self._gate(self.alpha_dense, x) * self.ff(self.norm2(x))

    def _gate(self, alpha: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.tanh(comfy.ops.cast_to_input(alpha, x))


class FourierEmbedder:
    """Numbers as sines and cosines of several frequencies."""

    def __init__(self, num_freqs: int = 64, temperature: float = 100) -> None:
        self.freq_bands = temperature ** (torch.arange(num_freqs, device="cpu") / num_freqs)

    def __call__(self, x: torch.Tensor, cat_dim: int = -1) -> torch.Tensor:
        """Those of *x*, per frequency, one behind the other along *cat_dim*."""
        return torch.cat([wave(float(frequency) * x) for frequency in self.freq_bands for wave in (torch.sin, torch.cos)], dim=cat_dim)


class PositionNet(torch.nn.Module):
    """Boxes and their texts to what the layers attend to; learnt values stand for boxes that are not there."""

    def __init__(self, in_dim: int, out_dim: int, fourier_freqs: int = FREQUENCIES) -> None:
        super().__init__()
        ops = comfy.ops.manual_cast
        self.fourier_embedder = FourierEmbedder(fourier_freqs, HOTTEST)
        self.position_dim = fourier_freqs * 2 * 4  # of the four sides
        widths = (in_dim + self.position_dim, 512, 512, out_dim)
        layers: list[torch.nn.Module] = []
        for inner, outer in zip(widths, widths[1:]):
            layers += [ops.Linear(inner, outer), torch.nn.SiLU()]
        self.linears = torch.nn.Sequential(*layers[:-1])
        self.null_positive_feature = torch.nn.Parameter(torch.zeros(in_dim))
        self.null_position_feature = torch.nn.Parameter(torch.zeros(self.position_dim))

    def forward(self, boxes: torch.Tensor, masks: torch.Tensor, positive_embeddings: torch.Tensor) -> torch.Tensor:
        """B x boxes x width, of *boxes* (B x boxes x 4: left, top, right, bottom as parts), *masks* (1 where one is there) and texts."""
        there = masks[..., None]
        texts = torch.lerp(comfy.ops.cast_to_input(self.null_positive_feature, boxes), positive_embeddings, there)
        places = torch.lerp(comfy.ops.cast_to_input(self.null_position_feature, boxes), self.fourier_embedder(boxes), there)
        return self.linears(torch.cat([texts, places], dim=-1))


class Gligen(torch.nn.Module):
    """The layers of all transformer blocks, in the order in which the network calls these, and the net of positions."""

    def __init__(self, modules: Sequence[GatedSelfAttentionDense], position_net: PositionNet, key_dim: int) -> None:
        super().__init__()
        self.module_list = torch.nn.ModuleList(modules)
        self.position_net = position_net
        self.key_dim = key_dim
        self.max_objs = MOST_BOXES

    def set_position(self, latent_image_shape: Sequence[int], position_params: Sequence[Box], device: torch.device) -> Patch:
        """A ``middle_patch`` for latents of *latent_image_shape* with the boxes *position_params*.

        Raises ``ValueError`` for more boxes than the model was trained with.
        """
        if len(position_params) > self.max_objs:
            raise ValueError(f"GLIGEN takes {self.max_objs} boxes at most, not {len(position_params)}; leave some out")
        batch, _, rows, columns = latent_image_shape
        boxes, texts, there = torch.zeros(self.max_objs, 4), torch.zeros(self.max_objs, self.key_dim), torch.zeros(self.max_objs)
        for number, (text, height, width, y, x) in enumerate(position_params):
            if text.shape[-1] != self.key_dim:
                raise ValueError(f"this GLIGEN model takes texts encoded to {self.key_dim} values, not {text.shape[-1]}")
            boxes[number] = torch.tensor([x / columns, y / rows, (x + width) / columns, (y + height) / rows])
            texts[number], there[number] = text[0], 1.0
        told = self.position_net(*(one[None].expand(batch, *one.shape).to(device) for one in (boxes, there, texts)))

        def patch(x: torch.Tensor, extra_options: Mapping[str, Any]) -> torch.Tensor:
            return self.module_list[extra_options["transformer_index"]](x, told.to(x))

        return patch

    def set_empty(self, latent_image_shape: Sequence[int], device: torch.device) -> Patch:
        """The same without boxes."""
        return self.set_position(latent_image_shape, (), device)


def load_gligen(sd: Mapping[str, torch.Tensor]) -> Gligen:
    """The model of the state dict *sd*, on its tensors. Raises ``KeyError``, ``RuntimeError`` or ``ValueError`` where it is none."""
    modules, width = [], FIRST_GENERATION
    for name in _layers(sd):
        own = {key.removeprefix(name): value for key, value in sd.items() if key.startswith(name)}
        query_dim, width = own["linear.weight"].shape
        heads = HEADS if width == FIRST_GENERATION else query_dim // HEAD_WIDTH
        modules.append(_loaded(GatedSelfAttentionDense, (query_dim, width, heads, query_dim // heads), own))
    if not modules:
        raise ValueError("it has no layers named fuser; use a GLIGEN file")
    net = {key.removeprefix("position_net."): value for key, value in sd.items() if key.startswith("position_net.")}
    sizes = net["null_positive_feature"].shape[0], net["linears.4.weight"].shape[0]
    return Gligen(modules, _loaded(PositionNet, sizes, net), width)


def load_gligen_file(ckpt_path: str) -> Any:
    """A patcher of the :class:`Gligen` in a file, from the RAM model cache. Raises ``ModelFileError``, naming the file."""
    return load_add_on(ckpt_path, "gligen", load_gligen).patcher


def _layers(names: Mapping[str, Any]) -> list[str]:
    """What the names of each block's further layers begin with, in the order of the blocks."""
    found = {}
    for name in names:
        block, fuser, _ = name.partition(".fuser.")
        parts = block.split(".")
        part = next((part for part in PARTS if part in parts), None)
        if fuser and part is not None:
            found[block + fuser] = (PARTS.index(part), int(parts[parts.index(part) + 1]), block)
    return sorted(found, key=lambda name: found[name])


def _loaded(kind: Any, sizes: Sequence[int], tensors: Mapping[str, torch.Tensor]) -> Any:
    """A module of *kind* over *tensors*."""
    with torch.device("meta"):
        made = kind(*sizes)
    made.load_state_dict({name: value for name, value in tensors.items() if name in made.state_dict()}, strict=True, assign=True)
    return made


__getattr__, __dir__ = placeholders(__name__, "GLIGEN models of other kinds", "GatedCrossAttentionDense GatedSelfAttentionDense2")
