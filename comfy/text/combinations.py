"""Which text models make which family's text encoder, for each ``type`` of the loader nodes. Needs no torch."""

import importlib
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from comfy.text.te_models import TEModel

ANY = "any other type"


@dataclass(frozen=True, slots=True)
class Combination:
    """*models* (each once) make what *target* gives, for the loaders' *types*; with ``ANY`` among them, for all types that have no own.

    *target* names a function ("module:function") that is called with the names of the parts and returns a ``ClipTarget``.
    """

    models: frozenset[TEModel]
    types: tuple[str, ...]
    target: str

    def make(self, parts: Collection[str]) -> Any:
        """The ``ClipTarget`` for *parts* ("clip_l", "t5xxl")."""
        module, _, name = self.target.partition(":")
        build: Callable[[Collection[str]], Any] = getattr(importlib.import_module(module), name)
        return build(parts)


def _sets(*several: tuple[TEModel, ...]) -> tuple[frozenset[TEModel], ...]:
    return tuple(map(frozenset, several))


_L, _G, _T5, _OLD, _BASE, _UMT5 = (TEModel.CLIP_L, TEModel.CLIP_G, TEModel.T5_XXL, TEModel.T5_XXL_OLD, TEModel.T5_BASE, TEModel.UMT5_XXL)
_L_G_T5 = _sets((_L,), (_G,), (_T5,), (_L, _G), (_L, _T5), (_G, _T5), (_L, _G, _T5))
_LLAMA = TEModel.LLAMA3_8
_QWEN35 = _sets((TEModel.QWEN35_08B,), (TEModel.QWEN35_2B,), (TEModel.QWEN35_4B,), (TEModel.QWEN35_9B,), (TEModel.QWEN35_27B,))
_GEMMA4 = (TEModel.GEMMA_4_E2B, TEModel.GEMMA_4_E4B, TEModel.GEMMA_4_12B, TEModel.GEMMA_4_31B)
_HIDREAM = tuple(frozenset(some) for count in range(1, 5) for some in itertools.combinations((_L, _G, _T5, _LLAMA), count))
_RULES: tuple[tuple[tuple[frozenset[TEModel], ...], tuple[str, ...], str], ...] = (
    (_L_G_T5[:-1], ("sd3",), "comfy.text_encoders.sd3_clip:sd3_target"),
    (_L_G_T5[-1:], ("sd3", ANY), "comfy.text_encoders.sd3_clip:sd3_target"),
    (_HIDREAM[:-1], ("hidream",), "comfy.text_encoders.hidream:hidream_target"),
    (_HIDREAM[-1:], ("hidream", ANY), "comfy.text_encoders.hidream:hidream_target"),
    (_sets((_L, _T5)), ("flux", ANY), "comfy.text_encoders.flux:flux_target"),
    (_sets((_T5,)), ("ltxv",), "comfy.text_encoders.lt:ltxv_target"),
    (_sets((_T5,)), ("pixart", "chroma"), "comfy.text_encoders.pixart_t5:pixart_target"),
    (_sets((_T5,)), ("cogvideox",), "comfy.text_encoders.cogvideo:cogvideo_target"),
    (_sets((_T5,)), ("mochi", ANY), "comfy.text_encoders.genmo:mochi_target"),
    (_sets((_OLD,)), ("cosmos", ANY), "comfy.text_encoders.cosmos:cosmos_target"),
    (_sets((_BASE,)), ("stable_audio", ANY), "comfy.text_encoders.sa_t5:stable_audio_target"),
    (_sets((TEModel.T5_GEMMA,)), ("stable_audio", ANY), "comfy.text_encoders.sa3:t5_gemma_target"),
    (_sets((TEModel.UMT5_BASE,)), ("ace", ANY), "comfy.text_encoders.ace:ace_target"),
    (_sets((_UMT5,)), ("wan", ANY), "comfy.text_encoders.wan:wan_target"),
    (_sets((TEModel.QWEN25_7B,)), ("qwen_image", ANY), "comfy.text_encoders.qwen_image:qwen_image_target"),
    (_sets((_L, _LLAMA)), ("hunyuan_video",), "comfy.text_encoders.hunyuan_video:hunyuan_video_target"),
    (_sets((_L, TEModel.QWEN25_7B)), ("kandinsky5",), "comfy.text_encoders.kandinsky5:kandinsky5_target"),
    (_sets((_L, TEModel.QWEN25_7B)), ("kandinsky5_image",), "comfy.text_encoders.kandinsky5:kandinsky5_image_target"),
    (
        _sets((TEModel.QWEN25_7B,), (TEModel.QWEN25_7B, TEModel.BYT5_SMALL_GLYPH)),
        ("hunyuan_video_15",),
        "comfy.text_encoders.hunyuan_video:hunyuan_video_15_target",
    ),
    (_sets((TEModel.QWEN25_7B,)), ("longcat_image",), "comfy.text_encoders.longcat_image:longcat_target"),
    (_sets((TEModel.QWEN3_2B,)), ("ovis", ANY), "comfy.text_encoders.ovis:ovis_target"),
    (_sets((TEModel.QWEN3VL_4B,)), ("krea2",), "comfy.text_encoders.krea2:krea2_target"),
    (_sets((TEModel.QWEN3VL_32B,)), ("minimax", ANY), "comfy.text_encoders.minimax:minimax_target"),
    (_sets((TEModel.QWEN3VL_4B,)), ("flux3",), "comfy.text_encoders.flux3:flux3_target"),
    (_sets((TEModel.QWEN3VL_4B,)), ("mage",), "comfy.text_encoders.mage_flow:mage_flow_target"),
    (_sets((TEModel.QWEN25_3B,)), ("omnigen2", ANY), "comfy.text_encoders.omnigen2:omnigen2_target"),
    (_sets((TEModel.QWEN3VL_8B,)), ("ideogram4",), "comfy.text_encoders.ideogram4:ideogram4_target"),
    (_sets((TEModel.QWEN3VL_8B,)), ("boogu",), "comfy.text_encoders.boogu:boogu_target"),
    (_sets((TEModel.QWEN3VL_8B,)), ("qwen_image",), "comfy.text_encoders.qwen_image21:qwen_image21_target"),
    (_sets((TEModel.QWEN3VL_4B,)), ("ideogram4", ANY), "comfy.text_encoders.qwen3vl:qwen3vl_target"),  # Ideogram's own is the larger
    (_sets((TEModel.QWEN3VL_8B,)), (ANY,), "comfy.text_encoders.qwen3vl:qwen3vl_target"),
    (_sets((TEModel.MINISTRAL_3_3B,)), ("flux2", ANY), "comfy.text_encoders.ernie:ernie_target"),
    (_QWEN35, ("stable_diffusion", ANY), "comfy.text_encoders.qwen35:qwen35_target"),
    (_sets((TEModel.GEMMA_2_2B,)), ("pixeldit",), "comfy.text_encoders.pixeldit:pixeldit_target"),
    (_sets((TEModel.GEMMA_2_2B,)), ("lumina2", ANY), "comfy.text_encoders.lumina2:lumina_target"),
    *(
        rule
        for model, size in zip(_GEMMA4, ("e2b", "e4b", "unified", "large"))
        for rule in (
            (_sets((model,)), ("stable_diffusion", ANY), f"comfy.text_encoders.gemma4:{size}_target"),
            (_sets((model, TEModel.LTX_PROJECTION)), ("ltxv", ANY), f"comfy.text_encoders.ltxav:{size}_target"),
        )
    ),
    (_sets((TEModel.GEMMA_3_12B, TEModel.LTX_PROJECTION)), ("ltxv",), "comfy.text_encoders.lt:ltxav_target"),
    (_sets((TEModel.GEMMA_3_12B,)), ("ltxv", ANY), "comfy.text_encoders.gemma3:gemma3_target"),
    (_sets((TEModel.GEMMA_3_4B,), (TEModel.GEMMA_3_4B_VISION,)), ("lumina2", ANY), "comfy.text_encoders.gemma3:gemma3_target"),
    (_sets((TEModel.QWEN3_4B,)), ("lumina2", ANY), "comfy.text_encoders.z_image:z_image_target"),
    (
        _sets(*((TEModel.QWEN3_06B, writer) for writer in (TEModel.QWEN3_2B, TEModel.QWEN3_4B))),
        ("ace",),
        "comfy.text_encoders.ace15:ace15_target",
    ),
    (_sets((TEModel.QWEN3_06B,)), ("stable_diffusion", ANY), "comfy.text_encoders.anima:anima_target"),
    (_sets((TEModel.QWEN3_4B,)), ("flux", "flux2"), "comfy.text_encoders.flux2:flux2_target"),
    (_sets((TEModel.QWEN3_8B,), (TEModel.MISTRAL3_24B,)), ("flux2", ANY), "comfy.text_encoders.flux2:flux2_target"),
    (_sets((_L,)), ("stable_diffusion", ANY), "comfy.sd1_clip:sd1_target"),
    (_sets((TEModel.CLIP_H,)), ("stable_diffusion", ANY), "comfy.text_encoders.sd2_clip:sd2_target"),
    (_sets((_G,)), ("stable_diffusion", ANY), "comfy.sdxl_clip:refiner_target"),
    (_sets((_L, _G)), ("sdxl", "stable_diffusion", ANY), "comfy.sdxl_clip:sdxl_target"),
)
COMBINATIONS: tuple[Combination, ...] = tuple(Combination(models, types, target) for sets, types, target in _RULES for models in sets)


def find_combination(models: Collection[TEModel], kind: str) -> Combination | None:
    """What *models* make together for the loaders' type *kind* (in lower case), or None."""
    fitting = [one for one in COMBINATIONS if one.models == frozenset(models) and len(one.models) == len(models)]
    exact = next((one for one in fitting if kind in one.types), None)
    return exact or next((one for one in fitting if ANY in one.types), None)


def types_for(count: int) -> set[str]:
    """The loaders' types for which some *count* text models load."""
    return {kind for one in COMBINATIONS if len(one.models) == count for kind in one.types} - {ANY}


def makings(kind: str, count: int) -> list[frozenset[TEModel]]:
    """The sets of *count* text models that load for the type *kind*; without any, all that load."""
    sized = [one for one in COMBINATIONS if len(one.models) == count]
    return [one.models for one in sized if kind in one.types] or [one.models for one in sized]
