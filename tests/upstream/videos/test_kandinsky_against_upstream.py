"""HunyuanVideo 1 and Kandinsky 5 give upstream's latents and pictures: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos/test_kandinsky_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from hunyuan_files import POOLED, first_file, first_vae_tensors
from kandinsky_files import kandinsky_file

BOUND = 1e-3
CONTEXT, LEVEL = 48, 1 / 255
QWEN, PICTURE_WIDTH = 3584, 2560  # ComfyUI takes Kandinsky's text to be of that width, and tells the network for pictures by the other

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


def case_of(numbers, model, width, options=None, size=(3, 4, 6), **more):
    """A case with two texts of *width* and a vector, for latents of 16 channels."""
    told = {"pooled_output": numbers(1, POOLED), **(options or {})}
    sides = {side: [[numbers(1, 7, width), dict(told)]] for side in ("positive", "negative")}
    sampled = {"noise": numbers(1, 16, *size), "latent": torch.zeros(1, 16, *size), "cfg": 2.0}
    return {"model": model, **sides, **sampled, **more}


def first_frame(numbers, size=(3, 4, 6)):
    """A picture's latent with frames for all of a video, and the mask that is 0 where it stands."""
    free = torch.ones(1, 1, *size)
    free[:, :, :1] = 0.0
    return numbers(1, 16, *size), free


def hunyuan_cases(folder, numbers) -> dict:
    """Text, its mask, guidance, and a picture in the three ways."""
    plain = first_file(folder / "plain.safetensors", context=CONTEXT)
    masked = first_file(folder / "masked.safetensors", 1, context=CONTEXT, channels=33)
    skyreels = first_file(folder / "skyreels.safetensors", 2, context=CONTEXT, channels=32)
    latent, free = first_frame(numbers)
    begun = latent.clone()
    begun[:, :, 1:] = 0.0
    padded = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    return {
        "text": case_of(numbers, plain, CONTEXT),
        "text, bf16": case_of(numbers, plain, CONTEXT, model_options={"dtype": torch.bfloat16}),
        "masked text": case_of(numbers, plain, CONTEXT, {"attention_mask": padded}, cfg=1.0),  # ComfyUI takes these one at a time
        "guidance": case_of(numbers, plain, CONTEXT, {"guidance": 3.0}, shift=5.0),
        "concat": case_of(numbers, masked, CONTEXT, {"concat_latent_image": latent, "concat_mask": free}),
        "replace": case_of(numbers, plain, CONTEXT, {"guiding_frame_index": 0}, latent=begun, noise_mask=free),
        "beside": case_of(numbers, plain, CONTEXT, {"ref_latent": latent[:, :, :1]}, cfg=1.0),
        "skyreels": case_of(numbers, skyreels, CONTEXT, {"concat_latent_image": latent[:, :, :1]}),
    }


def kandinsky_cases(folder, numbers) -> dict:
    """Text and a first frame to video; text to a picture."""
    video = kandinsky_file(folder / "video.safetensors", context=QWEN)
    picture = kandinsky_file(
        folder / "picture.safetensors", dtype=torch.bfloat16, context=QWEN, picture=True, width=PICTURE_WIDTH, blocks=1, inner=64
    )
    latent, free = first_frame(numbers)
    given = {"time_dim_replace": latent[:, :, :1], "concat_mask": free}
    return {
        "video": case_of(numbers, video, QWEN),
        "video, masked text": case_of(numbers, video, QWEN, {"attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]])}),
        "video of a frame": case_of(numbers, video, QWEN, given, shift=5.0),
        "picture": case_of(numbers, picture, QWEN, size=(8, 6), model_options={"dtype": torch.float32}),
    }


def check_latents(folder, cases):
    """Run *cases* with both, and compare; every one must differ from the first."""
    torch.save(cases, folder / "cases.pt")
    ours, theirs = results_of_both("video_model_runs.py", folder, [folder / "cases.pt"])
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:28} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    first, *others = ours.values()
    assert not any(torch.equal(latent, first) for latent in others)


def test_latents_of_hunyuan_video_1_are_upstreams(tmp_path):
    check_latents(tmp_path, hunyuan_cases(tmp_path, Numbers()))


def test_latents_of_kandinsky_5_are_upstreams(tmp_path):
    check_latents(tmp_path, kandinsky_cases(tmp_path, Numbers()))


def test_pictures_and_their_latents_are_upstreams(tmp_path):
    numbers = Numbers()
    pictures = [numbers(frames, 48, 64, 3).sigmoid() for frames in (1, 6, 13)]
    latents = [numbers(1, 16, 5, 6, 8), numbers(1, 16, 1, 3, 4), numbers(1, 16, 2, 3, 4)]
    torch.save({"vae": {"vae": first_vae_tensors(), "pictures": pictures, "latents": latents}}, tmp_path / "cases.pt")
    ours, theirs = (results["vae"] for results in results_of_both("video_model_runs.py", tmp_path, [tmp_path / "cases.pt"]))
    for own, other in zip(ours[:3], theirs[:3], strict=True):
        assert own.shape == other.shape and (own - other).norm() <= BOUND * other.norm()
    for own, other in zip(ours[3:], theirs[3:], strict=True):
        assert own.shape == other.shape and (own - other).abs().max() <= LEVEL and own.std() > 0.05
