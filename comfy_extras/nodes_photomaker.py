"""Nodes for PhotoMaker: a person from pictures in place of a word of the prompt."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

photomaker_model = lazy_module("comfy.image_encoders.photomaker")
clip_vision = lazy_module("comfy.clip_vision")
model_management = lazy_module("comfy.model_management")
torch = lazy_module("torch")

WORD = "photomaker"  # the word that the person stands for
CHUNK, MARKS = 77, 2  # tokens that are encoded together, and the marks of their begin and end among them


class PhotoMakerLoader(io.ComfyNode):
    """Loads a PhotoMaker model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PhotoMakerLoader",
            display_name="Load PhotoMaker Model",
            category="model/loaders",
            inputs=[io.Combo.Input("photomaker_model_name", options=folder_paths.get_filename_list("photomaker"))],
            outputs=[io.Photomaker.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, photomaker_model_name: str) -> io.NodeOutput:
        """Its patcher. Raises ``ModelFileError``, naming the file, where it holds no such model."""
        return io.NodeOutput(photomaker_model.load_photomaker(folder_paths.get_full_path_or_raise("photomaker", photomaker_model_name)))


class PhotoMakerEncode(io.ComfyNode):
    """Encodes a prompt with the person of a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PhotoMakerEncode",
            display_name="PhotoMaker Encode",
            category="model/conditioning/photomaker",
            description='The word before "photomaker" becomes the person of the pictures. For SDXL\'s text encoder.',
            inputs=[
                io.Photomaker.Input("photomaker"),
                io.Image.Input("image"),
                io.Clip.Input("clip"),
                io.String.Input("text", multiline=True, dynamic_prompts=True, default="photograph of photomaker"),
            ],
            outputs=[io.Conditioning.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, photomaker: Any, image: Any, clip: Any, text: str) -> io.NodeOutput:
        """The conditioning; without the word "photomaker" in *text* that of the text alone."""
        words = text.split(" ")
        number = words.index(WORD) + 1 if WORD in words else -1
        told = clip.tokenize(text, return_word_ids=True)
        tokens = {name: [_without(chunk, number) for chunk in chunks] for name, chunks in told.items()}
        states, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
        if number > 0:
            model_management.load_models_gpu([photomaker])
            device = photomaker.load_device
            pixels = clip_vision.clip_preprocess(image.to(device)).float()[None]
            places = (torch.arange(states.shape[1], device=device) == _place_before(number))[None]
            states = photomaker.model(pixels, states.to(device), places).to(states.device)
        return io.NodeOutput([[states, {"pooled_output": pooled}]])


def _place_before(number: int) -> int:
    """Where the state of the word before word *number* is, a token counted for each word, as ComfyUI does: chunk after chunk, behind its
    begin. ComfyUI itself takes one chunk only.
    """
    if number < 2:
        return 0
    chunk, place = divmod(number - 2, CHUNK - MARKS)
    return chunk * CHUNK + 1 + place


def _without(chunk: list[tuple[Any, ...]], number: int) -> list[tuple[Any, ...]]:
    """*chunk* without the tokens of the word *number*, filled up with its last token."""
    kept = [token for token in chunk if token[2] != number]
    return kept + [chunk[-1]] * (len(chunk) - len(kept))


comfy_entrypoint = extension_of(PhotoMakerLoader, PhotoMakerEncode)
