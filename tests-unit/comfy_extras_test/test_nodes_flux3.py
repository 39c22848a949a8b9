"""Flux.3's nodes: pictures to look at on both sides, an empty latent of their size, prompts with a table of places."""

import json

import pytest
import torch

from comfy_extras.nodes_flux3 import Flux3LayoutPrompt, ReferenceMultiLatent

RESIZED = {"resolution": "resize", "megapixels": 0.25}
CAT = {"type": "obj", "bbox": [10, 20, 500, 600], "desc": "a cat"}


class Encoder:
    """An autoencoder that gives a picture's size."""

    def encode(self, picture):
        return torch.tensor(picture.shape)


def told(output):
    """What both sides are told, and the size of the empty latent."""
    positive, negative, latent = output.args
    return [side[0][1].get("reference_latents", []) for side in (positive, negative)], latent["samples"].shape


def test_all_pictures_are_on_both_sides_in_their_order():
    positive, negative = [["p", {"reference_latents": ["before"]}]], [["n", {}]]
    pictures = {"image10": torch.zeros(1, 64, 64, 3), "image0": torch.rand(2, 1024, 2048, 4), "image1": None}
    (first, second), size = told(ReferenceMultiLatent.execute(positive, RESIZED, negative, Encoder(), pictures))
    sizes = [[1, 368, 720, 3], [1, 368, 720, 3], [1, 512, 512, 3]]
    assert first[0] == "before" and [own.tolist() for own in first[1:]] == [own.tolist() for own in second] == sizes
    assert size == (1, 128, 23, 45) and "reference_latents" not in negative[0][1]


def test_pictures_may_keep_their_size_but_for_cells():
    pictures = {"image0": torch.arange(40.0).reshape(1, 40, 1, 1).expand(1, 40, 35, 3)}
    (first, second), size = told(ReferenceMultiLatent.execute([["p", {}]], {"resolution": "native"}, None, Encoder(), pictures))
    assert first[0].tolist() == second[0].tolist() == [1, 32, 32, 3] and size == (1, 128, 2, 2)
    with pytest.raises(ValueError, match="10 x 40 pixels is smaller than 16"):
        ReferenceMultiLatent.execute([["p", {}]], {"resolution": "native"}, None, Encoder(), {"image0": torch.zeros(1, 40, 10, 3)})


def test_without_pictures_nothing_is_told_and_without_an_autoencoder_they_are_refused():
    assert told(ReferenceMultiLatent.execute([["p", {}]], RESIZED)) == ([[], []], (1, 128, 64, 64))
    with pytest.raises(ValueError, match="no vae"):
        ReferenceMultiLatent.execute([["p", {}]], RESIZED, images={"image0": torch.zeros(1, 64, 64, 3)})


def table(prompt):
    words, _, rows = prompt.partition(" [")
    return words, json.loads(f"[{rows}")


def test_a_prompt_ends_with_the_places_of_what_it_names():
    sign = {"type": "text", "bbox": (0, 0, 1000, 100), "text": "Öffnen", "desc": "red letters"}
    (prompt,) = Flux3LayoutPrompt.execute([CAT, sign], " <obj_1> under a sign ").args
    words, rows = table(prompt)
    assert words == "<obj_1> under a sign <obj_2>" and "Öffnen" in prompt
    assert rows == [
        {"id": "obj_1", "bbox": [10, 20, 500, 600], "desc": "a cat"},
        {"id": "obj_2", "bbox": [0, 0, 1000, 100], "desc": '"Öffnen", red letters'},
    ]
    assert Flux3LayoutPrompt.execute([], " a cat ").args == ("a cat",)


def test_of_a_picture_that_is_changed_places_are_those_of_the_result():
    _, rows = table(Flux3LayoutPrompt.execute([CAT], "In <ref_image_0>, make <obj_1> grey").args[0])
    assert rows == [{"id": "obj_1", "from": None, "src_bbox": None, "tgt_bbox": [10, 20, 500, 600], "desc": "a cat"}]


@pytest.mark.parametrize(("elements", "said"), [({"bbox": []}, "a list of elements, got dict"), ([{"x": 1}], "element 1 .* has no bbox")])
def test_what_is_no_element_is_refused(elements, said):
    with pytest.raises(ValueError, match=said):
        Flux3LayoutPrompt.execute(elements, "a cat")
