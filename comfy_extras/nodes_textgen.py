"""Nodes that have a text encoder's language model write."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from comfy_extras.ltx_prompts import gemma3_conversation, gemma4_conversation
from comfy_extras.node_extension import extension_of

log = logging.getLogger(__name__)

_THOUGHTS = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)


def _sampling_options() -> list[io.DynamicCombo.Option]:
    numbers: list[Any] = [
        io.Float.Input("temperature", default=0.7, min=0.01, max=2.0, step=0.000001),
        io.Int.Input("top_k", default=64, min=0, max=1000),
        io.Float.Input("top_p", default=0.95, min=0.0, max=1.0, step=0.01),
        io.Float.Input("min_p", default=0.05, min=0.0, max=1.0, step=0.01),
        io.Float.Input("repetition_penalty", default=1.05, min=0.0, max=5.0, step=0.01),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
        io.Float.Input("presence_penalty", optional=True, default=0.0, min=0.0, max=5.0, step=0.01),
    ]
    return [io.DynamicCombo.Option("on", numbers), io.DynamicCombo.Option("off", [])]


def _schema(node_id: str, display_name: str, description: str, aliases: list[str]) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category="text",
        description=description,
        search_aliases=aliases,
        inputs=[
            io.Clip.Input("clip"),
            io.String.Input("prompt", multiline=True, dynamic_prompts=True, default=""),
            io.Image.Input("image", optional=True),
            io.Image.Input("video", optional=True, tooltip="Frames, 24 for each second; the model sees one of each second."),
            io.Audio.Input("audio", optional=True),
            io.Int.Input("max_length", default=512, min=1, max=32768),
            io.DynamicCombo.Input("sampling_mode", options=_sampling_options(), display_name="Sampling Mode"),
            io.Boolean.Input("thinking", optional=True, default=False, tooltip="Let a model that can do so think before it answers."),
            io.Boolean.Input(
                "use_default_template",
                optional=True,
                default=True,
                tooltip="Put the prompt into the conversation that the model was trained with.",
                advanced=True,
            ),
        ],
        outputs=[io.String.Output(display_name="generated_text")],
    )


def generated(clip: Any, prompt: str, max_length: int, sampling_mode: Mapping[str, Any], use_default_template: bool, **media: Any) -> str:
    """What the language model of *clip* writes after *prompt*; *media* are its "thinking", "image", "video" and "audio", or None.

    Raises ``ValueError`` for a text encoder that is no language model.
    """
    tokens = clip.tokenize(prompt, skip_template=not use_default_template, min_length=1, **media)
    given = [name for name in ("image", "video", "audio") if media.get(name) is not None]
    if given and not any(isinstance(token[0], dict) for chunks in tokens.values() for chunk in chunks for token in chunk):
        log.warning("the text encoder takes no %s here; it answers without", " or ".join(given))
    options = {name: value for name, value in sampling_mode.items() if name != "sampling_mode" and value is not None}
    said = clip.generate(tokens, do_sample=sampling_mode.get("sampling_mode") == "on", max_length=max_length, **options)
    return str(clip.decode(said))


class TextGenerate(io.ComfyNode):
    """An answer to a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Has the text encoder's language model answer a prompt, which may be about a picture where the model looks at them."
        return _schema("TextGenerate", "Generate Text", description, ["LLM", "gemma"])

    @classmethod
    def execute(
        cls,
        clip: Any,
        prompt: str,
        max_length: int,
        sampling_mode: Mapping[str, Any],
        image: Any = None,
        thinking: bool = False,
        use_default_template: bool = True,
        video: Any = None,
        audio: Any = None,
    ) -> io.NodeOutput:
        """The text, without marks of the conversation."""
        media = {"image": image, "thinking": thinking, "video": video, "audio": audio}
        return io.NodeOutput(generated(clip, prompt, max_length, sampling_mode, use_default_template, **media))


class TextGenerateLTX2Prompt(TextGenerate):
    """A short prompt as LTX 2 wants it: a long one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        description = "Has Gemma, LTX 2's text encoder, turn a few words into the detailed prompt with sounds that LTX 2 was trained with."
        return _schema("TextGenerateLTX2Prompt", "Generate LTX2 Prompt", description, ["prompt enhance", "LLM", "gemma"])

    @classmethod
    def execute(
        cls,
        clip: Any,
        prompt: str,
        max_length: int,
        sampling_mode: Mapping[str, Any],
        image: Any = None,
        thinking: bool = False,
        use_default_template: bool = True,
        video: Any = None,
        audio: Any = None,
    ) -> io.NodeOutput:
        """The text without what the model thought; *prompt* itself where nothing is left."""
        is_gemma4 = "gemma4" in getattr(clip.tokenizer, "clip_name", "")
        seen = image is not None
        asked = gemma4_conversation(prompt, seen, thinking) if is_gemma4 else gemma3_conversation(prompt, seen)
        media = {"image": image, "thinking": thinking, "video": video, "audio": audio}
        text = generated(clip, asked, max_length, sampling_mode, use_default_template, **media)
        return io.NodeOutput(_THOUGHTS.sub("", text).strip() or prompt)


comfy_entrypoint = extension_of(TextGenerate, TextGenerateLTX2Prompt)
