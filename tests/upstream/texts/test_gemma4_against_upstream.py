"""Small models of Gemma 4 read words, pictures, videos and sounds, and write, as in ComfyUI; so does T5Gemma read.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/texts/test_gemma4_against_upstream.py
"""

import sys

import pytest
import torch
from both_trees import PROJECT, against_upstream, results_of_both

sys.path[:0] = [str(PROJECT / "tests-unit" / "comfy_test"), str(PROJECT / "tests-unit" / "comfy_test" / "text")]

import gemma4_files as files  # noqa: E402
import t5_gemma_files as t5  # noqa: E402
from test_text_generation_against_upstream import DRAWN, LIKELIEST  # noqa: E402

pytestmark = against_upstream(1200)

CLOSE = 1e-3
WRITTEN = [{"max_length": 16, "presence_penalty": 0.0, **LIKELIEST}, {"max_length": 16, "presence_penalty": 0.4, **DRAWN}]
NUMBERS = torch.Generator().manual_seed(4)
WORDS = {"text": "a red apple"}
TALK = {"skip_template": False, "min_length": 1}
PICTURE = {**WORDS, "image": torch.rand(1, 200, 330, 3, generator=NUMBERS), **TALK}
TWO = {**WORDS, "image": torch.rand(2, 144, 96, 3, generator=NUMBERS), **TALK}
VIDEO = {**WORDS, "video": torch.rand(50, 64, 48, 3, generator=NUMBERS), **TALK}
SOUND = {**WORDS, "audio": {"waveform": torch.rand(1, 2, 44100, generator=NUMBERS) - 0.5, "sample_rate": 44100}, **TALK}
LONG = {"text": "so many words " * 50, "thinking": True, **TALK}
SEEN_ALONE = {"text": "look <|image><|image|><image|> here", "image": PICTURE["image"], "skip_template": True, "min_length": 1}


def sizes(size):
    """Those of the generated files as ComfyUI names them."""
    network = {
        "vocab_size": 300,
        "hidden_size": files.WIDTH,
        "intermediate_size": files.INNER,
        "num_attention_heads": files.HEADS,
        "num_key_value_heads": files.key_heads(size, False),
        "hidden_size_per_layer_input": files.PER_LAYER if size in files.SHARED else 0,
    }
    eyes = {"hidden_size": files.EYES_WIDTH, "intermediate_size": files.EYES_INNER, "num_attention_heads": files.EYES_HEADS}
    eyes |= {"num_hidden_layers": 2, "head_dim": files.EYES_HEAD, "position_embedding_size": files.PLACES}
    ears = {"hidden_size": files.EARS_WIDTH, "num_hidden_layers": 2, "num_attention_heads": files.EARS_HEADS}
    ears |= {"intermediate_size": 4 * files.EARS_WIDTH, "output_proj_dims": files.EARS_OUT}
    glance = {"mm_embed_dim": files.GLANCE, "mm_posemb_size": files.GLANCE_PLACES, "output_proj_dims": files.GLANCE}
    return {"network": network, "head": files.HEAD, "far_head": files.FAR_HEAD, "eyes": eyes, "ears": ears, "glance": glance}


def case(size, *calls, kind="STABLE_DIFFUSION", written=WRITTEN, **more):
    """A case."""
    tensors = files.with_tokenizer({**files.gemma4_tensors(size), **more})
    return {"tensors": tensors, "sizes": sizes(size), "kind": kind, "calls": list(calls), "written": written}


def projection():
    """What LTX 2.5's file of Gemma 4 12B holds beside it."""
    inputs, numbers = 49 * files.WIDTH, torch.Generator().manual_seed(9)
    name = "text_embedding_projection.{}_aggregate_embed.{}"
    return {
        name.format(sense, leaf): torch.randn(shape, generator=numbers) * 0.02
        for sense, width in (("video", 64), ("audio", 32))
        for leaf, shape in (("weight", (width, inputs)), ("bias", (width,)))
    }


def t5_gemma():
    """T5Gemma's case."""
    sizes = {"vocab_size": 300, "hidden_size": t5.WIDTH, "intermediate_size": t5.INNER, "num_hidden_layers": t5.LAYERS}
    sizes |= {"num_attention_heads": t5.HEADS, "num_key_value_heads": t5.HEADS}
    calls = [{"text": "a (red:1.3) apple"}, {"text": "two cats and a bird", "min_length": 30}]
    tensors = t5.with_words(t5.t5_gemma_tensors())
    return {"tensors": tensors, "sizes": {"t5": sizes}, "kind": "STABLE_AUDIO", "calls": calls, "written": []}


CASES = {
    "T5Gemma": t5_gemma(),
    "E2B": case("e2b", WORDS, PICTURE, SOUND, LONG),
    "E4B": case("e4b", WORDS, TWO, VIDEO, SOUND, {**PICTURE, "audio": SOUND["audio"]}),
    "12B": case("12b", WORDS, PICTURE, SOUND, SEEN_ALONE),
    "31B": case("31b", WORDS, TWO),
    "LTX 2.5": case("12b", WORDS, {**SEEN_ALONE, "min_length": 1024}, kind="LTXV", written=[], **projection()),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma4")
    torch.save(CASES, folder / "cases.pt")
    return results_of_both("texts/gemma4_runs.py", folder, [folder / "cases.pt"])


@pytest.mark.parametrize("name", CASES)
def test_gemma4_reads_and_writes_the_same(both, name):
    ours, theirs = both
    for number, (own, other) in enumerate(zip(ours[name], theirs[name], strict=True)):
        assert own["name"] == other["name"] and own["ids"] == other["ids"], number
        assert own["said"] == other["said"], number
        assert own.keys() == other.keys()
        if "attention_mask" in other:
            assert torch.equal(own["attention_mask"], other["attention_mask"])
        assert own["cond"].shape == other["cond"].shape
        assert (own["cond"] - other["cond"]).norm() <= CLOSE * other["cond"].norm(), number
