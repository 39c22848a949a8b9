"""MiniMax H3's models give upstream's latents, pictures, sounds and conditioning: same files, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_minimax_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from minimax_files import minimax_file
from minimax_vae_files import audio_vae_tensors, vae_tensors

BOUND, LEVEL, SILENCE = 1e-3, 1 / 255, 1e-3  # of latents, colours, and -60 dB of sound
CONTEXT = 40
SIDES, TIMES = (2, 6, 8), 5

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


def minimax_cases(folder) -> dict:
    """Every kind of network, and every kind of conditioning that its nodes make."""
    numbers, cases = Numbers(), {}
    files = {"plain": minimax_file(folder / "plain.safetensors"), "curve": minimax_file(folder / "curve.safetensors", curve=9)}

    def add(name, file="plain", sides=SIDES, times=TIMES, options=None, **case):
        latents = [torch.zeros(1, 24, *sides), torch.zeros(1, 32, 2, times)]
        made = {
            "model": files[file],
            "positive": [[numbers(1, 7, CONTEXT), options or {}]],
            "negative": [[numbers(1, 4, CONTEXT), {}]],
            "noise": [numbers(*latent.shape) for latent in latents],
            "latent": latents,
        }
        cases[name] = made | case

    picture, clip, sound = numbers(1, 24, 1, 6, 8), numbers(1, 24, 2, 6, 8), numbers(1, 32, 2, 3)
    tags = torch.tensor([1, 1, 0, 0, 0, 1, 1])
    add("text")
    add("text, two sides", cfg=3.0)
    add("text, tokens of pictures", options={"minimax_token_tags": tags})
    add("a curve of times", "curve")
    add("odd sides", sides=(7, 5, 7), times=38)
    add("bf16", model_options={"dtype": torch.bfloat16})
    first, last = ({"resolved_frame_index": index, "latent": picture} for index in (0, 4))
    add("first frame", options={"minimax_keyframes": [first], "minimax_token_tags": tags})
    add("first and last frame", "curve", options={"minimax_keyframes": [first, last]})
    guides = [{"resolved_frame_index": 2, "latent": clip, "audio_latent": sound}, {"resolved_frame_index": 1, "audio_latent": sound}]
    add("clip and sound at a frame", sides=(7, 6, 8), times=38, options={"minimax_keyframes": guides})
    image = {"kind": "image", "latent_h": 4, "latent_w": 6, "latent": numbers(1, 24, 1, 4, 6)}
    film = {"kind": "video", "latent_t": 2, "latent_h": 6, "latent_w": 8, "ref_audio_t": 0, "latent": clip, "audio_latent": None}
    talking = {**film, "kind": "video_audio", "ref_audio_t": 3, "audio_latent": sound}
    voice = {"kind": "audio", "ref_audio_t": 3, "audio_latent": sound}
    add("a picture shown", options={"minimax_refs": [image]})
    add("all kinds shown", options={"minimax_refs": [image, film, talking, voice]}, cfg=2.0)
    add("shown and guided", options={"minimax_refs": [image, voice], "minimax_keyframes": [first]})
    add(
        "shown noisily", options={"minimax_refs": [image, voice], "minimax_visual_cond_noise_aug": 0.8, "minimax_audio_cond_noise_aug": 0.9}
    )
    begun = [numbers(1, 24, *SIDES), numbers(1, 32, 2, TIMES)]
    add("a latent that goes on", latent=begun)
    kept = torch.ones(1, 1, *SIDES)
    kept[:, :, :1] = 0.0
    kept[:, :, 1, :3, :5] = 0.4
    audio_kept = torch.ones(1, 1, 2, TIMES)
    audio_kept[..., :2] = 0.0
    add("a latent of which some is kept", latent=begun, noise_mask=[kept, audio_kept])
    add("only the sound is free", latent=begun, noise_mask=[torch.zeros(1, 1, *SIDES)])
    add("other shifts", shifts=(7.0, 5.0), steps=3)
    add("res_multistep", sampler="res_multistep", steps=4)
    add("ancestral", sampler="euler_ancestral", steps=3)
    return cases


def test_latents_are_upstreams(tmp_path):
    cases = minimax_cases(tmp_path)
    torch.save(cases, tmp_path / "cases.pt")
    ours, theirs = results_of_both("minimax_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert ours.keys() == theirs.keys() == cases.keys()
    differences = {
        name: max(((own - latent).norm() / latent.norm()).item() for own, latent in zip(ours[name], latents, strict=True))
        for name, latents in theirs.items()
    }
    for name, difference in differences.items():
        print(f"{name:34} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    for kind in (-2, -1):
        text = ours["text"][kind]
        same = [name for name, made in ours.items() if made[kind].shape == text.shape and torch.equal(made[kind], text)]
        assert same == ["text"]


def test_pictures_and_sounds_are_upstreams(tmp_path):
    numbers = Numbers()
    videos = [numbers(*sides, 3).sigmoid() for sides in ((1, 32, 48), (5, 32, 32), (22, 48, 32), (6, 32, 288))]
    shapes = ((2, 2, 3), (7, 3, 2), (8, 2, 2), (1, 2, 2), (7, 20, 18))
    of_video = {"vae": vae_tensors(), "given": videos, "latents": [numbers(1, 24, *shape) for shape in shapes]}
    sounds = [numbers(1, 1600, 2) * 0.2, numbers(1, 2000, 1) * 0.2]
    of_sound = {"vae": audio_vae_tensors(), "given": sounds, "latents": [numbers(1, 32, 2, 3), numbers(2, 32, 2, 2)]}
    torch.save({"video": of_video, "sound": of_sound}, tmp_path / "cases.pt")
    ours, theirs = results_of_both("minimax_runs.py", tmp_path, [tmp_path / "cases.pt"])
    for kind, given in (("video", len(videos)), ("sound", len(sounds))):
        for number, (own, other) in enumerate(zip(ours[kind], theirs[kind], strict=True)):
            difference = (own - other).abs().max().item()
            print(f"{kind} {number} {tuple(own.shape)!s:24} {difference:.1e} of {other.abs().max().item():.2f}, {other.std().item():.2f}")
            assert own.shape == other.shape and other.std() > 0.01
            if number < given:
                assert (own - other).norm() <= BOUND * other.norm()
            else:
                assert difference <= (LEVEL if kind == "video" else SILENCE)
