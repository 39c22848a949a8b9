"""MiniMax H3's models give upstream's latents, pictures, sounds and conditioning: same files, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/minimax/test_minimax_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from minimax_files import minimax_file, minimax_text_tensors
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
    ours, theirs = results_of_both("minimax/minimax_runs.py", tmp_path, [tmp_path / "cases.pt"])
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
    ours, theirs = results_of_both("minimax/minimax_runs.py", tmp_path, [tmp_path / "cases.pt"])
    for kind, given in (("video", len(videos)), ("sound", len(sounds))):
        for number, (own, other) in enumerate(zip(ours[kind], theirs[kind], strict=True)):
            difference = (own - other).abs().max().item()
            print(f"{kind} {number} {tuple(own.shape)!s:24} {difference:.1e} of {other.abs().max().item():.2f}, {other.std().item():.2f}")
            assert own.shape == other.shape and other.std() > 0.01
            if number < given:
                assert (own - other).norm() <= BOUND * other.norm()
            else:
                assert difference <= (LEVEL if kind == "video" else SILENCE)


def test_texts_are_upstreams(tmp_path):
    tensors, numbers = minimax_text_tensors(), Numbers()
    sizes = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 50, "vocab_size": 151656}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    eyes = {"hidden_size": 64, "intermediate_size": 48, "depth": 4, "deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 16}
    picture = {"type": "image", "data": numbers(1, 64, 96, 3).sigmoid()}
    pair = {"type": "image", "data": numbers(2, 70, 64, 3).sigmoid(), "minimax_video_block": True}
    texts = [[5, 6, 7], [151652, picture, 151653, 9, 151652, pair, 151653, 7, 8], [5, 151652, pair, 151653]]
    case = {"run": "encoded", "module": "minimax", "name": "te", "part": "qwen3vl_32b", "sizes": sizes, "eyes": eyes}
    case |= {"tensors": tensors, "tokens": texts, "arguments": {}}
    torch.save({"states": case, "tags": {**case, "extra": "minimax_token_tags"}}, tmp_path / "cases.pt")
    ours, theirs = results_of_both("small_model_runs.py", tmp_path, [tmp_path / "cases.pt"])
    for own, other in zip(ours["states"], theirs["states"], strict=True):
        difference = ((own - other).norm() / other.norm()).item()
        print(f"{tuple(own.shape)} {difference:.1e}")
        assert difference <= BOUND
    assert all(
        torch.equal(own, other) and len(own) == states.shape[1] for own, other, states in zip(ours["tags"], theirs["tags"], ours["states"])
    )
    assert {int(tag) for tags in ours["tags"] for tag in tags} == {0, 1}


def node_cases(numbers) -> dict:
    """Every way to use the nodes."""
    kinds = [torch.zeros(1, 24, 12, 4, 6), torch.zeros(1, 32, 2, 65)]
    sound, mono = ({"waveform": numbers(1, channels, 40000), "sample_rate": 16000} for channels in (2, 1))
    film, shorter, picture = numbers(45, 40, 50, 3).sigmoid(), numbers(7, 30, 30, 3).sigmoid(), numbers(2, 130, 70, 3).sigmoid()
    size = {"width": 96, "height": 64, "length": 30}
    every = ("clip", "vae", "audio_vae")
    text = {**size, "prompt": "a cat"}
    guide = {"positive": [[torch.zeros(1, 2), {}]], "frame_idx": 5}
    shown = {"ref_images": {"ref_image_0": picture, "ref_image_1": None}, "ref_videos": {"ref_video_0": film, "ref_video_1": shorter}}
    heard = {"ref_video_audios": {"ref_video_audio_1": sound}, "ref_audios": {"ref_audio_0": mono}}
    return {
        "empty": {"node": "EmptyMiniMaxH3LatentAV", "inputs": size},
        "text": {"node": "MiniMaxH3ImageToVideo", "inputs": text, "encoders": every[:2]},
        "no words": {"node": "MiniMaxH3ImageToVideo", "inputs": {**text, "prompt": ""}, "encoders": every[:2]},
        "frames": {"node": "MiniMaxH3ImageToVideo", "inputs": {**text, "first_frame": picture, "last_frame": film}, "encoders": every[:2]},
        "guide": {"node": "MiniMaxH3AddGuide", "inputs": {**guide, "image": picture}, "encoders": every[1:], "kinds": kinds},
        "clip": {
            "node": "MiniMaxH3AddGuide",
            "inputs": {**guide, "image": film[:25], "audio": sound},
            "encoders": every[1:],
            "kinds": kinds,
        },
        "late": {"node": "MiniMaxH3AddGuide", "inputs": {**guide, "audio": mono, "frame_idx": -4}, "encoders": every[1:], "kinds": kinds},
        "shown": {"node": "MiniMaxH3ReferenceToVideo", "inputs": {**text, **shown, **heard}, "encoders": every},
        "large": {"node": "MiniMaxH3ReferenceToVideo", "inputs": {**text, **shown, "ref_image_size": "max"}, "encoders": every},
        "nothing": {"node": "MiniMaxH3ReferenceToVideo", "inputs": text, "encoders": every},
    }


def test_nodes_give_what_upstreams_give(tmp_path):
    cases = node_cases(Numbers())
    torch.save(cases, tmp_path / "cases.pt")
    ours, theirs = results_of_both("minimax/minimax_runs.py", tmp_path, [tmp_path / "cases.pt"])
    for name in cases:
        assert ours[name].keys() == theirs[name].keys(), name
        for place, expected in theirs[name].items():
            own = ours[name][place]
            assert own.shape == expected.shape and torch.allclose(own, expected, rtol=1e-4, atol=1e-5), (name, place)
