"""Nodes for ACE-Step 1 and 1.5: what a song is about, its empty latent, and a sound that it is to be like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import node_helpers
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import MAX_BATCH
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

ACE, LATENT = "model/conditioning/ace", "model/latent/ace"
ANY_SEED = 0xFFFFFFFFFFFFFFFF
LANGUAGES = (
    "ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt ro ru sa sk sr sv sw ta te th tl "
    "tr uk ur vi yue zh unknown"
).split()
ROOTS = "C C# Db D D# Eb E F F# Gb G G# Ab A A# Bb B".split()
KEYS = [f"{root} {quality}" for quality in ("major", "minor") for root in ROOTS]
CODES_HELP = (
    "A language model writes codes of the music first: slower, and better. Switch it off where a reference sound says what the music is "
    "to be like."
)
BATCH_HELP = "How many sounds are made at once."


def _song_inputs() -> list[io.Input]:
    texts = (io.String.Input(name, multiline=True, dynamic_prompts=True) for name in ("tags", "lyrics"))
    return [io.Clip.Input("clip"), *texts]


def _length_inputs(step: float) -> list[io.Input]:
    return [
        io.Float.Input("seconds", default=120.0, min=1.0, max=1000.0, step=step),
        io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, tooltip=BATCH_HELP),
    ]


def _zeros(*shape: int) -> Any:
    return torch.zeros(shape, device=model_management.intermediate_device(), dtype=model_management.intermediate_dtype())


class TextEncodeAceStepAudio(io.ComfyNode):
    """Encodes tags and lyrics for ACE-Step 1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TextEncodeAceStepAudio",
            category=ACE,
            inputs=[*_song_inputs(), io.Float.Input("lyrics_strength", default=1.0, min=0.0, max=10.0, step=0.01)],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, tags: str, lyrics: str, lyrics_strength: float) -> io.NodeOutput:
        """The conditioning, with how much the lyrics count."""
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(tags, lyrics=lyrics))
        return io.NodeOutput(node_helpers.conditioning_set_values(encoded, {"lyrics_strength": lyrics_strength}))


class TextEncodeAceStepAudio15(io.ComfyNode):
    """Encodes tags, lyrics and what else is known of a song for ACE-Step 1.5, and has codes of its music written."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TextEncodeAceStepAudio1.5",
            category=ACE,
            inputs=[
                *_song_inputs(),
                io.Int.Input("seed", default=0, min=0, max=ANY_SEED, control_after_generate=True),
                io.Int.Input("bpm", default=120, min=10, max=300),
                io.Float.Input("duration", default=120.0, min=0.0, max=2000.0, step=0.1),
                io.Combo.Input("timesignature", options=["2", "3", "4", "6"]),
                io.Combo.Input("language", options=LANGUAGES, default="en"),
                io.Combo.Input("keyscale", options=KEYS),
                io.Boolean.Input("generate_audio_codes", default=True, tooltip=CODES_HELP, advanced=True),
                io.Float.Input("cfg_scale", default=2.0, min=0.0, max=100.0, step=0.1, advanced=True),
                io.Float.Input("temperature", default=0.85, min=0.0, max=2.0, step=0.01, advanced=True),
                io.Float.Input("top_p", default=0.9, min=0.0, max=2000.0, step=0.01, advanced=True),
                io.Int.Input("top_k", default=0, min=0, max=100, advanced=True),
                io.Float.Input("min_p", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, tags: str, timesignature: str, **about: Any) -> io.NodeOutput:
        """The conditioning, with lyrics and codes."""
        tokens = clip.tokenize(tags, timesignature=int(timesignature), **about)
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))


class EmptyAceStepLatentAudio(io.ComfyNode):
    """Zeros in the latent space of ACE-Step 1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyAceStepLatentAudio",
            display_name="Empty Ace Step 1.0 Latent Audio",
            category=LATENT,
            inputs=_length_inputs(0.1),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, seconds: float, batch_size: int) -> io.NodeOutput:
        """A latent of *batch_size* × 8 × 16 × places, each of 4096 samples at 44100 Hz."""
        return io.NodeOutput({"samples": _zeros(batch_size, 8, 16, int(seconds * 44100 / 512 / 8)), "type": "audio"})


class EmptyAceStep15LatentAudio(io.ComfyNode):
    """Zeros in the latent space of ACE-Step 1.5."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyAceStep1.5LatentAudio",
            display_name="Empty Ace Step 1.5 Latent Audio",
            category=LATENT,
            inputs=_length_inputs(0.01),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, seconds: float, batch_size: int) -> io.NodeOutput:
        """A latent of *batch_size* × 64 × places, each of 1920 samples at 48000 Hz."""
        samples = _zeros(batch_size, 64, round(seconds * 48000 / 1920))
        return io.NodeOutput({"samples": samples, "type": "audio", "downscale_ratio_temporal": 1764})


class ReferenceAudio(io.ComfyNode):
    """Gives ACE-Step 1.5 a sound that its music is to be like."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ReferenceTimbreAudio",
            display_name="Set Reference Audio",
            category="model/conditioning",
            description="Gives ACE-Step 1.5 a sound that its music is to be like.",
            is_experimental=True,
            inputs=[io.Conditioning.Input("conditioning"), io.Latent.Input("latent", optional=True)],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, conditioning: Conditioning, latent: Latent | None = None) -> io.NodeOutput:
        """The conditioning with the latent of that sound, if there is one."""
        if latent is None:
            return io.NodeOutput(conditioning)
        references = {"reference_audio_timbre_latents": [latent["samples"]]}
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, references, append=True))


comfy_entrypoint = extension_of(
    TextEncodeAceStepAudio, EmptyAceStepLatentAudio, TextEncodeAceStepAudio15, EmptyAceStep15LatentAudio, ReferenceAudio
)
