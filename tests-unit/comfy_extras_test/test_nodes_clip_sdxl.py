"""SDXL text encoding: what reaches the text encoder, for prompts of equal and of different lengths."""

import pytest

from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL, CLIPTextEncodeSDXLRefiner

SIZES = (1024, 768, 8, 16, 512, 640)


class RecordingClip:
    """A text encoder that makes one chunk per word and returns what it was asked to encode."""

    def tokenize(self, text):
        words = text.split() or [""]
        return {"g": [("g", word) for word in words], "l": [("l", word) for word in words]}

    def encode_from_tokens_scheduled(self, tokens, add_dict):
        return [[tokens, add_dict]]


@pytest.mark.parametrize(
    "text_g, text_l, chunks_g, chunks_l",
    [("a b", "c d", ["a", "b"], ["c", "d"]), ("a b c", "d", ["a", "b", "c"], ["d", "", ""]), ("a", "b c", ["a", ""], ["b", "c"])],
)
def test_both_texts_get_as_many_chunks(text_g, text_l, chunks_g, chunks_l):
    ([[tokens, _]],) = CLIPTextEncodeSDXL.execute(RecordingClip(), *SIZES, text_g, text_l)
    assert tokens == {"g": [("g", word) for word in chunks_g], "l": [("l", word) for word in chunks_l]}


def test_sizes_reach_the_conditioning_through_the_method_that_packs_call():
    ([[_, options]],) = CLIPTextEncodeSDXL().encode(RecordingClip(), *SIZES, "a", "b")
    assert options == {"width": 1024, "height": 768, "crop_w": 8, "crop_h": 16, "target_width": 512, "target_height": 640}


def test_refiner_adds_its_score():
    ([[tokens, options]],) = CLIPTextEncodeSDXLRefiner().encode(RecordingClip(), 6.0, 1024, 768, "a")
    assert tokens["l"] == [("l", "a")] and options == {"aesthetic_score": 6.0, "width": 1024, "height": 768}


@pytest.mark.parametrize("node", [CLIPTextEncodeSDXL, CLIPTextEncodeSDXLRefiner])
def test_lengths_declare_no_step_like_comfyuis(node):
    lengths = {name: entry[1] for name, entry in node.INPUT_TYPES()["required"].items() if entry[0] == "INT"}
    assert lengths["width"] == lengths["height"] == {"default": 1024, "min": 0, "max": 16384}
    assert not any("step" in options for options in lengths.values())
