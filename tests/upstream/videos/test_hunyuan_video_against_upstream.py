"""HunyuanVideo 1.5's models give upstream's latents and pictures: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos -k hunyuan
"""

import torch
from both_trees import against_upstream, results_of_both
from hunyuan_files import SEEN, WRITTEN, hunyuan_file, hunyuan_vae_tensors
from text_encoder_files import text_model
from transformer_files import qwen_text_tensors

BOUND = 1e-3
CONTEXT, LEVEL = 48, 1 / 255
START, WORDS = (151644,), 151700  # a mark of a speaker, and as many words as it needs

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


def cases(folder) -> dict:
    """Text, a picture, texts to be written, the network that adds detail, and one that goes from one time to another."""
    numbers = Numbers()
    plain = hunyuan_file(folder / "plain.safetensors", context=CONTEXT)
    detail = hunyuan_file(folder / "detail.safetensors", 1, context=CONTEXT, channels=98)
    flow = hunyuan_file(folder / "flow.safetensors", 2, context=CONTEXT, meanflow=True)
    frames = torch.ones(1, 1, 3, 4, 6)
    frames[:, :, :1] = 0.0

    def case(options=None, model=plain, **more):
        sides = {side: [[numbers(1, 7, CONTEXT), {"pooled_output": None, **(options or {})}]] for side in ("positive", "negative")}
        sampled = {"noise": numbers(1, 32, 3, 4, 6), "latent": torch.zeros(1, 32, 3, 4, 6), "cfg": 2.0}
        return {"model": model, **sides, **sampled, **more}

    picture = {"concat_latent_image": numbers(1, 32, 3, 4, 6), "concat_mask": frames, "sight": numbers(1, 9, SEEN)}
    larger = {"concat_latent_image": numbers(1, 66, 3, 4, 6)}
    return {
        "text": case(),
        "text, bf16": case(model_options={"dtype": torch.bfloat16}),
        "written": case({"conditioning_byt5small": numbers(1, 5, WRITTEN)}),
        "picture": case(picture),
        "picture, written": case({**picture, "conditioning_byt5small": numbers(1, 5, WRITTEN)}),
        "detail": case({**larger, "noise_augmentation": 0.7}, detail),
        "detail, no noise": case({**larger, "noise_augmentation": 0.0}, detail),
        "detail of nothing": case(None, detail),
        "from one time to another": case(model=flow, cfg=1.0, steps=3),
        "shifted": case(shift=5.0),
    }


def test_latents_are_upstreams(tmp_path):
    torch.save(cases(tmp_path), tmp_path / "cases.pt")
    ours, theirs = results_of_both("videos/video_model_runs.py", tmp_path, [tmp_path / "cases.pt"])
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:28} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    assert not [name for name, latent in ours.items() if name != "text" and torch.equal(latent, ours["text"])]


def test_pictures_and_their_latents_are_upstreams(tmp_path):
    numbers = Numbers()
    pictures = [numbers(frames, 64, 96, 3).sigmoid() for frames in (1, 6, 13)]
    latents = [numbers(1, 32, 5, 6, 8), numbers(1, 32, 1, 3, 4), numbers(1, 32, 2, 3, 4)]
    case = {"vae": hunyuan_vae_tensors(), "pictures": pictures, "latents": latents}
    torch.save({"vae": case}, tmp_path / "cases.pt")
    ours, theirs = (results["vae"] for results in results_of_both("videos/video_model_runs.py", tmp_path, [tmp_path / "cases.pt"]))
    for own, other in zip(ours[:3], theirs[:3], strict=True):
        assert own.shape == other.shape and (own - other).norm() <= BOUND * other.norm()
    for own, other in zip(ours[3:], theirs[3:], strict=True):
        assert own.shape == other.shape and (own - other).abs().max() <= LEVEL and own.std() > 0.05


def test_states_of_texts_are_upstreams(tmp_path):
    width = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1}
    byt5 = {"d_ff": 64, "d_kv": 8, "d_model": 32, "num_heads": 4, "num_layers": 3, "vocab_size": 400, "model_type": "t5"}
    byt5 |= {"is_gated_act": True, "dense_act_fn": "gelu_pytorch_tanh"}
    ids = [int(value) for value in torch.randint(5, 390, (14,), generator=torch.Generator().manual_seed(5))]
    said = [*START, 8948, 198, *ids[:5], *START, 872, 198, *ids]
    case = {
        "sizes": {"qwen": {**width, "vocab_size": WORDS}, "byt5": byt5},
        "qwen": qwen_text_tensors(eyes=False, layers=4, vocabulary=WORDS),
        "byt5": text_model("t5xxl", vocabulary=400) | {"shared.weight": Numbers()(400, 32)},
        "tokens": {"qwen25_7b": said, "byt5": [*ids[:6], 1]},
        "text": 'Text "Grüße, 世界!". ',
    }
    case["byt5"] = {
        name: value for name, value in case["byt5"].items() if not name.startswith("encoder.block.") or int(name.split(".")[2]) < 3
    }
    torch.save({"texts": case}, tmp_path / "cases.pt")
    ours, theirs = (results["texts"] for results in results_of_both("videos/video_model_runs.py", tmp_path, [tmp_path / "cases.pt"]))
    assert ours[0].shape == (1, len(ids), 64)  # what the user says
    for own, other in zip(ours, theirs, strict=True):
        assert own.shape == other.shape and (own - other).norm() <= BOUND * other.norm()
