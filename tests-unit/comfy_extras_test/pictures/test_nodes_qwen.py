"""Nodes that encode prompts about pictures, and empty latents of several layers."""

import asyncio

import torch

from comfy_extras import nodes_qwen, nodes_zimage
from comfy_extras.fitted_pictures import with_area


class Encoder:
    """Remembers what it is asked to tokenize; its states are numbered."""

    def __init__(self):
        self.asked = []

    def tokenize(self, text, **more):
        self.asked.append((text, more))
        return len(self.asked)

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.full((1, 2, 3), float(tokens)), {"pooled_output": None}]]


class Autoencoder:
    """Gives back what it is to encode."""

    def encode(self, pixels):
        return pixels


class Eyes:
    """The same for an image encoder."""

    def encode_image(self, image):
        return image


def result(node, *arguments, **more):
    return node.execute(*arguments, **more).args[0]


def test_pictures_keep_their_proportions():
    assert with_area(torch.rand(1, 50, 100, 3), 1024).shape == (1, 724, 1448, 3)
    assert with_area(torch.rand(1, 50, 100, 4), 1024, 8).shape == (1, 728, 1448, 4)


def test_an_instruction_about_one_picture():
    encoder = Encoder()
    states, values = result(nodes_qwen.TextEncodeQwenImageEdit, encoder, "red", Autoencoder(), torch.rand(1, 32, 64, 4))[0]
    ((text, more),) = encoder.asked
    assert text == "red" and more["images"][0].shape == values["reference_latents"][0].shape == (1, 724, 1448, 3)
    assert states.shape == (1, 2, 3)


def test_without_a_picture_it_is_a_prompt():
    encoder = Encoder()
    values = result(nodes_qwen.TextEncodeQwenImageEdit, encoder, "red", Autoencoder())[0][1]
    assert encoder.asked == [("red", {"images": []})] and "reference_latents" not in values
    values = result(nodes_qwen.TextEncodeQwenImageEdit, Encoder(), "red", None, torch.rand(1, 8, 8, 3))[0][1]
    assert "reference_latents" not in values


def test_an_instruction_about_several_pictures():
    encoder = Encoder()
    pictures = {"image1": torch.rand(1, 40, 40, 3), "image3": torch.rand(1, 20, 40, 3)}
    values = result(nodes_qwen.TextEncodeQwenImageEditPlus, encoder, "mix", Autoencoder(), **pictures)[0][1]
    ((text, more),) = encoder.asked
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == f"Picture 1: {mark}Picture 3: {mark}mix" and "{}" in more["llama_template"]
    assert [image.shape for image in more["images"]] == [(1, 384, 384, 3), (1, 272, 543, 3)]
    assert [latent.shape for latent in values["reference_latents"]] == [(1, 1024, 1024, 3), (1, 728, 1448, 3)]


def test_layers_are_frames():
    latent = result(nodes_qwen.EmptyQwenImageLayeredLatentImage, 640, 320, 3, 2)
    assert latent["samples"].shape == (2, 16, 4, 40, 80) and not latent["samples"].any()


def test_words_around_the_omni_models_pictures():
    encoder, pictures = Encoder(), {"image1": torch.rand(1, 40, 40, 3), "image2": torch.rand(1, 20, 40, 3)}
    states, values = result(nodes_zimage.TextEncodeZImageOmni, encoder, "mix", Eyes(), True, Autoencoder(), **pictures)[0]
    assert [text for text, _ in encoder.asked[1:]] == nodes_zimage._texts_between(2) and encoder.asked[0][0] == "mix"
    assert [more["llama_template"] for _, more in encoder.asked] == [nodes_zimage.ABOUT_PICTURES, "{}", "{}", "{}"]
    assert [float(one[0, 0, 0]) for one in values["reference_latents_text_embeds"]] == [2, 3, 4] and float(states[0, 0, 0]) == 1
    assert [latent.shape for latent in values["reference_latents"]] == [(1, 1024, 1024, 3), (1, 728, 1448, 3)]
    assert values["clip_vision_outputs"][1] is pictures["image2"]


def test_the_omni_node_without_pictures_is_a_prompt():
    encoder = Encoder()
    values = result(nodes_zimage.TextEncodeZImageOmni, encoder, "mix")[0][1]
    assert encoder.asked == [("mix", {"llama_template": None})] and values == {"pooled_output": None}
    kept = result(nodes_zimage.TextEncodeZImageOmni, Encoder(), "mix", None, False, Autoencoder(), torch.rand(1, 24, 16, 3))[0][1]
    assert kept["reference_latents"][0].shape == (1, 24, 16, 3)


def test_the_extensions_list_their_nodes():
    for module, names in (
        (
            nodes_qwen,
            [
                "TextEncodeQwenImageEdit",
                "TextEncodeQwenImageEditPlus",
                "TextEncodeQwenImage21",
                "QwenImage21Cache",
                "EmptyQwenImageLayeredLatentImage",
            ],
        ),
        (nodes_zimage, ["TextEncodeZImageOmni"]),
    ):
        extension = asyncio.run(module.comfy_entrypoint())
        assert [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())] == names
