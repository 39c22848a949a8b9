"""Blocks go by the names and numbers that the network itself answers to, in the order of adapters' files."""

import collections
import pathlib
import re

import pytest
import torch
from residency_models import management
from small_models import small_checkpoint

import comfy.sd
from benchmarks.make_checkpoint import UNETS
from comfy.families.attention_blocks import cross_attention_blocks
from comfy.families.unet_key_names import unet_to_diffusers


@pytest.mark.parametrize(("family", "adm_channels"), [("sd15", 0), ("sdxl-light", 2816), ("sdxl-refiner", 2560)])
def test_every_cross_attention_is_patched_by_its_own_name(family, adm_channels):
    with management(None) as manager:
        model = comfy.sd.load_checkpoint_guess_config(small_checkpoint(family), output_vae=False, output_clip=False)[0]
        config = model.model.model_config.unet_config
        blocks, called = cross_attention_blocks(config), []
        patched = model.clone()
        for place in blocks:
            patched.set_model_attn2_replace(Noting(place, called), place.name, place.number, place.transformer)
        extra = {"y": torch.ones(1, model.model.adm_channels)} if adm_channels else {}
        context = torch.ones(1, 7, config["context_dim"])
        manager.load_models_gpu([patched])
        with torch.inference_mode():
            options = {"transformer_options": patched.model_options["transformer_options"]}
            patched.model.apply_model(torch.ones(1, 4, 8, 8), torch.tensor([5.0]), c_crossattn=context, **extra, **options)
        assert sorted(called) == sorted((place, place.width) for place in blocks), "each block once, as wide as it is said to be"
        assert [place for place, _ in called] == sorted(
            blocks, key=lambda place: (("input", "middle", "output").index(place.name), place[1:])
        )
        named = [name for name in unet_to_diffusers(config) if name.endswith("attn2.to_k.weight")]
        assert len(named) == len(blocks)


class Noting:
    def __init__(self, place, called):
        self.place, self.called = place, called

    def __call__(self, q, k, v, extra):
        assert extra["block"] == (self.place.name, self.place.number) and extra["block_index"] == self.place.transformer
        self.called.append((self.place, q.shape[-1]))
        return q


FULL = {
    "model_channels": 320,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
}


def test_sdxl_has_seventy_in_the_order_of_adapters_files():
    blocks = cross_attention_blocks(FULL)
    places = list(dict.fromkeys((place.name, place.number) for place in blocks))
    assert places == [*(("input", number) for number in (4, 5, 7, 8)), *(("output", number) for number in range(6)), ("middle", 0)]
    assert len(blocks) == 70 and blocks[0] == ("input", 4, 0, 640) and blocks[4] == ("input", 7, 0, 1280)
    assert blocks[-1] == ("middle", 0, 9, 1280) and [place.width for place in blocks].count(640) == 10


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="another kind"):
        cross_attention_blocks({"hidden_size": 3})


def numbers(text):
    """Block numbers with how many transformers each has, as the how-to writes them."""
    found, waiting = [], []
    for part in re.findall(r"\d+ to \d+|\(\d+[^)]*\)|\d+", text):
        if part.startswith("("):
            found += [(number, int(re.search(r"\d+", part)[0])) for number in waiting]
            waiting = []
        elif "to" in part:
            first, last = map(int, part.split(" to "))
            waiting += range(first, last + 1)
        else:
            waiting.append(int(part))
    return found + [(number, 1) for number in waiting]


@pytest.mark.parametrize(("title", "family"), [("SD 1.x", "sd15"), ("SDXL", "sdxl"), ("SDXL refiner", "sdxl-refiner")])
def test_the_table_for_node_authors_is_right(title, family):
    page = (pathlib.Path(__file__).resolve().parents[3] / "docs/howto/reuse-patched-models.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {title} |")]
    written = dict(zip(("input", "output", "middle"), map(numbers, row.split("|")[2:5]), strict=True))
    blocks = cross_attention_blocks(UNETS[family].as_dict())
    for name, listed in written.items():
        places = collections.Counter(block.number for block in blocks if block.name == name)
        assert listed == sorted(places.items()), name
