"""LTX's models give upstream's latents: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_ltx_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from ltx_files import (
    SOUND_WIDTH,
    TEXT,
    UPSAMPLERS,
    VAE_KINDS,
    VOCODERS,
    WIDTH,
    diffusion_vae_metadata,
    diffusion_vae_tensors,
    ltx_file,
    ltx_sound_metadata,
    ltx_sound_tensors,
    ltx_tensors,
    ltx_upsampler_file,
    ltx_vae_metadata,
    ltx_vae_tensors,
    projection_tensors,
)
from safetensors.torch import save_file

BOUND, LEVEL, SILENCE = 1e-3, 1 / 255, 1e-3  # -60 dB
FRAMES, ROWS, COLUMNS, TIMES = 3, 4, 6, 9

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


def places(first, frames=1, spread=0):
    """The places of a guide of *frames* latent frames that begins at the frame *first* of the video."""
    grid = torch.stack(torch.meshgrid(torch.arange(frames), torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij")).flatten(1)
    cells = torch.stack((grid, grid + 1), dim=-1)[None] * torch.tensor((8, 32, 32)).view(1, 3, 1, 1)
    cells[:, 0] = (cells[:, 0] - 7).clamp(min=0) + first
    cells[:, 1:, :, 1:] += spread
    return cells


def lora_file(path, kind):
    """*path*, after a LoRA for a network of the *kind* was written there, in the trainers' names."""
    numbers, changes = Numbers(), {}
    for name, value in ltx_tensors(kind).items():
        if name.endswith((".to_q.weight", ".net.2.weight")):
            rows, columns = value.shape
            changes |= {f"diffusion_model.{name.removesuffix('.weight')}.lora_A.weight": numbers(4, columns)}
            changes |= {f"diffusion_model.{name.removesuffix('.weight')}.lora_B.weight": numbers(rows, 4) * 0.1}
    save_file(changes, str(path))
    return str(path)


def cases(folder) -> dict:
    """Text, first frames, guides of every strength, sound alone kept, LoRA, both kinds and all ages of networks."""
    numbers = Numbers()
    old, plain, loud, newer, last = (ltx_file(folder / f"{kind}.safetensors", kind) for kind in ("0.9", "0.9.5", "2", "2.3", "2.5"))

    def case(model=plain, options=None, frames=FRAMES, text=TEXT, **more):
        mask = {"attention_mask": torch.ones(1, 7).long()} if model in (old, plain) else {}
        given = {"pooled_output": None, **mask, **(options or {})}
        sides = {side: [[numbers(1, 7, text), given]] for side in ("positive", "negative")}
        sampled = {"noise": numbers(1, 128, frames, ROWS, COLUMNS), "latent": torch.zeros(1, 128, frames, ROWS, COLUMNS)}
        return {"model": model, **sides, **sampled, "cfg": 2.0, **more}

    def heard(model=loud, options=None, frames=FRAMES, text=TEXT, **more):
        made = case(model, options, frames, text)
        made["noise"] = [made["noise"], numbers(1, 8, TIMES, 16)]
        made["latent"] = [made["latent"], torch.zeros(1, 8, TIMES, 16)]
        return made | more

    first, spots = torch.ones(1, 1, FRAMES, 1, 1), torch.ones(1, 1, FRAMES, ROWS, COLUMNS)
    first[:, :, :1] = 0.1
    spots[:, :, :, :2] = 0.0
    kept = numbers(1, 128, FRAMES, ROWS, COLUMNS)
    words = {"attention_mask": (torch.arange(7) > 1)[None].long()}
    guided = torch.ones(1, 1, FRAMES + 2, ROWS, COLUMNS)
    guided[:, :, FRAMES:] = 0.2
    sparse = guided.clone()
    sparse[:, :, FRAMES:, ::2] = -1.0
    guides = {"keyframe_idxs": torch.cat((places(0), places(9, spread=32)), dim=2)}
    count = ROWS * COLUMNS
    entry = {"pre_filter_count": count, "latent_shape": [1, ROWS, COLUMNS], "pixel_mask": None, "strength": 1.0}
    weak = {**guides, "guide_attention_entries": [entry | {"strength": 0.5}, entry]}
    shown = numbers(1, 1, 1, ROWS * 8, COLUMNS * 8).sigmoid()
    masked = {**guides, "guide_attention_entries": [entry | {"pixel_mask": shown}, entry | {"strength": 1.5}]}
    long = {"latent": numbers(1, 128, FRAMES + 2, ROWS, COLUMNS), "noise_mask": guided}
    both = {"latent": [long["latent"], numbers(1, 8, TIMES, 16)], "noise_mask": [guided, torch.ones(1, 1, TIMES, 16)]}
    silent = {"latent": [kept, numbers(1, 8, TIMES, 16)], "noise_mask": [first, torch.zeros(1, 1, 1, 1)]}
    pair = WIDTH + SOUND_WIDTH
    ready = {"unprocessed_ltxav_embeds": True}
    found = {
        "0.9": case(old),
        "0.9.5": case(),
        "0.9.5, bf16": case(model_options={"dtype": torch.bfloat16}),
        "rate and mask of the text": case(options={"frame_rate": 30.0, **words}),
        "first frame": case(latent=kept, noise_mask=first),
        "places": case(latent=kept, noise_mask=spots),
        "guides": case(options=guides, frames=FRAMES + 2, **long),
        "guides, sparse": case(options=guides, frames=FRAMES + 2, **(long | {"noise_mask": sparse})),
        "guides, weak": case(options=weak, frames=FRAMES + 2, **long),
        "guides, shown in part": case(options=masked, frames=FRAMES + 2, **long),
        "LoRA": case(lora=lora_file(folder / "lora.safetensors", "0.9.5")),
        "2": heard(),
        "2, without sound": case(loud),
        "2, connectors done": heard(text=2 * TEXT),
        "2, first frame": heard(latent=[kept, torch.zeros(1, 8, TIMES, 16)], noise_mask=[first, torch.ones(1, 1, TIMES, 16)]),
        "2, sound kept": heard(**silent),
        "2, guides": heard(options=weak, frames=FRAMES + 2, **both),
        "2, video alone is masked": heard(latent=[kept, torch.zeros(1, 8, TIMES, 16)], noise_mask=spots),
        "2, LoRA": heard(lora=lora_file(folder / "lora2.safetensors", "2")),
        "2, apart": heard(options=ready),
        "2.3": heard(newer, ready, text=pair),
        "2.3, first frame": heard(newer, ready, text=pair, **silent),
        "2.3, heard before": heard(newer, {**ready, "ref_audio": {"tokens": numbers(1, 4, 128)}}, text=pair),
        "2.5": heard(last, ready, text=pair),
        "2.5, first frame": heard(last, ready, text=pair, **silent),
        "2.5, guides": heard(last, {**weak, **ready}, frames=FRAMES + 2, text=pair, **both),
        "2.3, heard before, sound kept": heard(newer, {**ready, "ref_audio": {"tokens": numbers(1, 4, 128)}}, text=pair, **silent),
    }
    found["2, apart"]["options"] = {"a2v_cross_attn": False, "v2a_cross_attn": False}
    found["2, passing"] = {**found["2"], "options": {"stg_self_attn_blocks": (1,)}}
    return found


def test_latents_are_upstreams(tmp_path):
    torch.save(cases(tmp_path), tmp_path / "cases.pt")
    ours, theirs = results_of_both("ltx_runs.py", tmp_path, [tmp_path / "cases.pt"])
    differences = {}
    for name, latents in theirs.items():
        assert [part.shape for part in ours[name]] == [part.shape for part in latents]
        differences[name] = max(((own - other).norm() / other.norm()).item() for own, other in zip(ours[name], latents, strict=True))
        print(f"{name:32} {differences[name]:.1e}")
    bounds = {name: 5e-2 if "bf16" in name else BOUND for name in differences}
    assert not {name: value for name, value in differences.items() if not value <= bounds[name]}
    assert not [name for name, latents in ours.items() if name != "2" and torch.equal(latents[0], ours["2"][0])]


def autoencoder_cases() -> dict:
    """Every kind of video autoencoder, with one frame and more, and every kind of vocoder."""
    numbers = Numbers()
    pictures = [numbers(frames, 64, 96, 3).sigmoid() for frames in (1, 9, 20)]
    latents = [numbers(1, 128, 4, 5, 6), numbers(1, 128, 1, 2, 3), numbers(1, 128, 2, 2, 3)]
    sounds = [numbers(1, 30000, 2) * 0.3, numbers(1, 9000, 1) * 0.3]
    heard = [numbers(1, 8, 9, 16), numbers(2, 8, 4, 16)]
    videos = {kind: (ltx_vae_tensors(kind), ltx_vae_metadata(kind), pictures, latents) for kind in VAE_KINDS}
    videos["2.5"] = (diffusion_vae_tensors(), diffusion_vae_metadata(), pictures, latents)
    audio = {f"sound, {kind}": (ltx_sound_tensors(kind), ltx_sound_metadata(kind), sounds, heard) for kind in VOCODERS}
    names = ("vae", "metadata", "inputs", "latents")
    return {name: dict(zip(names, values)) for name, values in (videos | audio).items()}


def test_what_autoencoders_make_is_upstreams(tmp_path):
    made = autoencoder_cases()
    torch.save(made, tmp_path / "cases.pt")
    ours, theirs = results_of_both("ltx_runs.py", tmp_path, [tmp_path / "cases.pt"])
    for name, values in theirs.items():
        encoded = len(made[name]["inputs"])
        for number, (own, other) in enumerate(zip(ours[name], values, strict=True)):
            assert own.shape == other.shape, (name, number)
            if number < encoded:
                assert (own - other).norm() <= BOUND * other.norm(), (name, number)
            else:
                assert (own - other).abs().max() <= (SILENCE if "sound" in name else LEVEL), (name, number)
                assert own.std() > 0.02


def node_cases(folder) -> dict:
    """What the nodes work with."""
    text = [[Numbers()(1, 5, TEXT), {"pooled_output": None, "unprocessed_ltxav_embeds": True}]]
    return {
        "model": ltx_file(folder / "two.safetensors", "2"),
        "upsamplers": [ltx_upsampler_file(folder / f"{kind}.safetensors", kind) for kind in UPSAMPLERS],
        "vae": (ltx_vae_tensors("2"), ltx_vae_metadata("2")),
        "sound": (ltx_sound_tensors("2"), ltx_sound_metadata("2")),
        "text": text,
        "projections": {kind: projection_tensors(kind) for kind in ("2", "2.3")},
    }


def test_what_nodes_give_is_upstreams(tmp_path):
    torch.save(node_cases(tmp_path), tmp_path / "cases.pt")
    ours, theirs = results_of_both("ltx_node_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert ours.keys() == theirs.keys() and len(theirs) > 25
    wrong = {}
    for name, values in theirs.items():
        assert [value.shape for value in ours[name]] == [value.shape for value in values], name
        apart = max(((own - other).float().norm() / other.float().norm().clamp(min=1e-9)).item() for own, other in zip(ours[name], values))
        print(f"{name:32} {apart:.1e}")
        wrong |= {} if apart <= BOUND else {name: apart}
    assert not wrong
