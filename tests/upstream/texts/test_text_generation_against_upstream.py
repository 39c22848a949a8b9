"""Small language models say, token by token, what they say in ComfyUI: the likeliest and those drawn with a seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python
pytest tests/upstream/texts/test_text_generation_against_upstream.py
"""

import sys

import torch
from both_trees import PROJECT, against_upstream, results_of_both

sys.path.insert(0, str(PROJECT / "tests-unit" / "comfy_test"))

from image_family_files import llama_tensors  # noqa: E402
from test_newer_image_families_against_upstream import EYES  # noqa: E402
from text_encoder_files import EYES_WIDTH, text_model  # noqa: E402
from transformer_files import qwen3_vl_tensors, qwen35_tensors, qwen_text_tensors  # noqa: E402

pytestmark = against_upstream(1200)

WORDS = 300
LIKELIEST = {"do_sample": False, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}
DRAWN = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3, "seed": 7}
OPTIONS = [
    {"max_length": 24, "presence_penalty": 0.0, **LIKELIEST},
    {"max_length": 24, "presence_penalty": 0.4, **DRAWN},
    {"max_length": 24, "presence_penalty": 0.0, **DRAWN, "top_k": 0, "seed": 2**64 - 1},
]


def said(module, name, part, tensors, **more):
    """A case."""
    vocabulary, width = tensors["model.embed_tokens.weight"].shape
    layers = 1 + max(int(key.split(".")[2]) for key in tensors if key.startswith("model.layers."))
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": len(tensors["model.layers.0.mlp.up_proj.weight"])}
    tokens = [int(value) for value in torch.randint(5, WORDS, (12,), generator=torch.Generator().manual_seed(5))]
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": vocabulary, **heads}
    case = {"module": module, "name": name, "part": part, "sizes": sizes, "tensors": tensors, "tokens": tokens, "options": OPTIONS}
    return {**case, **more}


def about_a_picture():
    """Qwen3-VL's case."""
    case = said("qwen3vl", "te", "qwen3vl_4b", qwen3_vl_tensors(vocabulary=WORDS, published=False), arguments={"model_type": "qwen3vl_4b"})
    picture = {"type": "image", "data": torch.rand(1, 96, 64, 3, generator=torch.Generator().manual_seed(3))}
    return {**case, "eyes": EYES, "tokens": [*case["tokens"][:4], picture, *case["tokens"][4:]]}


def with_states(**more):
    """Qwen 3.5's case."""
    tensors = qwen35_tensors(vocabulary=WORDS, published=False)
    case = said("qwen35", "te", "qwen35_2b", tensors, arguments={"model_type": "qwen35_2b"})
    kinds = ["full_attention" if number % 4 == 3 else "linear_attention" for number in range(4)]
    states = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
    eyes = {"hidden_size": 64, "intermediate_size": 48, "depth": 3, "num_position_embeddings": 16}
    return {**case, "eyes": eyes, "sizes": {**case["sizes"], **states, "layer_types": kinds}, **more}


def cases():
    qwen3 = qwen_text_tensors(eyes=False, normalised=True, vocabulary=WORDS)
    eyes = {"hidden_size": EYES_WIDTH, "intermediate_size": 2 * EYES_WIDTH, "num_hidden_layers": 2}
    return {
        "Qwen 3": said("z_image", "ZImageTEModel", "qwen3_4b", qwen3),
        "Qwen 3 of Anima": said("anima", "AnimaTEModel", "qwen3_06b", qwen3),
        "Ministral": said("ernie", "ErnieTEModel", "ministral3_3b", llama_tensors(layers=26, inner=96, vocabulary=WORDS)),
        "Gemma 2": said("lumina2", "LuminaModel", "gemma2_2b", text_model("gemma2_2b", vocabulary=WORDS)),
        "Qwen3-VL": about_a_picture(),
        "Qwen 3.5": with_states(),
        "Qwen 3.5, a picture": with_states(tokens=[7, 8, {"type": "image", "data": torch.rand(1, 64, 96, 3)}, 9]),
        "Qwen 3.5, many words": with_states(tokens=list(range(5, 155))),
        "Gemma 3 12B": said("lt", "gemma3_te", "gemma3_12b", text_model("gemma3_12b", vocabulary=WORDS), arguments={}, eyes=eyes),
    }


def test_every_model_says_the_same(tmp_path):
    torch.save(cases(), tmp_path / "cases.pt")
    ours, theirs = results_of_both("texts/text_generation_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert ours == theirs
    assert all(len(one) == 24 for said in ours.values() for one in said)
