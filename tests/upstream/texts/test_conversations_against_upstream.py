"""The text encoders of HunyuanVideo 1 and Kandinsky 5 give upstream's states, and put upstream's words around prompts.

Run as test_text_generation_against_upstream.py beside it.
"""

import torch
from both_trees import against_upstream, results_of_both
from image_family_files import llama_tensors
from text_encoder_files import CLIP_WIDTH, text_model
from transformer_files import qwen_text_tensors

BOUND = 1e-3
LLAMA_WORDS, QWEN_WORDS, WIDTH = 128300, 151700, 64
CLIP = {"hidden_size": CLIP_WIDTH, "intermediate_size": 2 * CLIP_WIDTH, "num_hidden_layers": 3, "num_attention_heads": 1}
LLAMA = {"vocab_size": LLAMA_WORDS, "hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 4}
QWEN = {**LLAMA, "vocab_size": QWEN_WORDS, "num_attention_heads": 2, "num_key_value_heads": 1}
WORDS = [int(value) for value in torch.randint(5, 390, (14,), generator=torch.Generator().manual_seed(5))]
CLIP_TOKENS = [49406, *WORDS, 49407] + [49407] * (75 - len(WORDS))

pytestmark = against_upstream(900)


def of_llama(*tokens):
    """A case of HunyuanVideo 1 with a system's and a user's turn."""
    return {
        "module": "hunyuan_video",
        "model": "HunyuanVideoClipModel",
        "parts": {"clip_l": text_model("clip_l"), "llama": llama_tensors(vocabulary=LLAMA_WORDS, width=WIDTH, layers=4, inner=96)},
        "sizes": {"clip_l": CLIP, "llama": {**LLAMA, "num_attention_heads": 2, "num_key_value_heads": 1}},
        "tokens": {"l": [CLIP_TOKENS], "llama": [[128000, *tokens]]},
    }


def cases():
    """A text, one with a picture before it, one without words, and one for Kandinsky."""
    picture = {"type": "embedding", "data": torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(2)), "original_type": "image"}
    system, user = (128006, 9125, 128007, 271), (128006, 882, 128007, 271)
    answer = (128006, 78191, 128007, 271)
    start, qwen = 151644, (8948, 198)
    kandinsky = {
        "module": "kandinsky5",
        "model": "Kandinsky5TEModel",
        "parts": {"clip_l": text_model("clip_l"), "qwen25_7b": qwen_text_tensors(eyes=False, layers=4, vocabulary=QWEN_WORDS)},
        "sizes": {"clip_l": CLIP, "qwen25_7b": QWEN},
        "tokens": {"l": [CLIP_TOKENS], "qwen25_7b": [[start, *qwen, *WORDS[:5], 151645, 198, start, 872, 198, *WORDS, 151645]]},
    }
    return {
        "text": of_llama(*system, *WORDS[:4], 128009, *user, *WORDS, 128009),
        "picture": of_llama(*system, {**picture, "image_interleave": 2}, *WORDS[:4], 128009, 271, *user, *WORDS, 128009, *answer),
        "no words": of_llama(*system, *WORDS[:4], 128009, *user, 128009),
        "kandinsky": kandinsky,
    }


def test_states_and_conversations_are_upstreams(tmp_path):
    torch.save(cases(), tmp_path / "cases.pt")
    ours, theirs = results_of_both("texts/conversation_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert ours["text"]["states"].shape == (1, len(WORDS) + 1, WIDTH) and ours["picture"]["states"].shape == (1, len(WORDS) + 4, WIDTH)
    assert ours.keys() == theirs.keys() and len(ours["templates"]) == 4
    for name, values in theirs.items():
        assert values.keys() == ours[name].keys()
        for key, other in values.items():
            own = ours[name][key]
            assert own.shape == other.shape and (own.float() - other.float()).norm() <= BOUND * other.float().norm(), (name, key)
        if name == "templates":
            assert all(torch.equal(value, ours[name][key]) for key, value in values.items())
