"""Wan's models give upstream's latents: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos/test_wan_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from wan_files import wan_file
from wan_vae_files import wan22_vae_layout, wan_vae_tensors

BOUND = 1e-3
LEVEL = 1 / 255
CONTEXT = 4096  # the only width of text that upstream knows

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


class Cases:
    """Cases by name, over files in *folder*."""

    def __init__(self, folder) -> None:
        self.folder, self.numbers, self.cases = folder, Numbers(), {}

    def add(self, name, kind="t2v", sides=(3, 6, 8), batch=1, options=None, sizes=None, **case):
        """A case of a network of *kind*, with *options* in its conditioning and a second prompt."""
        sizes = {"context": CONTEXT, "width": 256, **(sizes or {})}
        file = self.folder / f"{kind}-{'-'.join(map(str, sizes.values()))}.safetensors"
        channels = 48 if kind == "5b" else 16
        numbers = self.numbers
        made = {
            "model": str(file) if file.exists() else wan_file(file, kind, **sizes),
            "positive": [[numbers(1, 7, CONTEXT), options or {}]],
            "negative": [[numbers(1, 7, CONTEXT), {**(options or {}), **case.pop("negative_options", {})}]],
            "cfg": 2.0,
            "noise": numbers(batch, channels, *sides),
            "latent": torch.zeros(batch, channels, *sides),
        }
        self.cases[name] = made | case


def vision(numbers, tokens=257):
    """What an image encoder saw, as the runs make it a ComfyUI object."""
    return {"vision": numbers(1, tokens, 1280)}


def wan_cases(folder) -> dict:
    """Every kind of network, and every kind of conditioning that its nodes make."""
    made = Cases(folder)
    add, numbers = made.add, made.numbers
    frames = torch.ones(1, 1, 3, 6, 8)
    frames[:, :, :1] = 0.0
    picture = {"concat_latent_image": numbers(1, 16, 3, 6, 8), "concat_mask": frames}
    by_frame = {**picture, "concat_mask": frames.repeat(1, 4, 1, 1, 1)}
    add("text")
    add("text, odd sides, two videos", sides=(2, 5, 7), batch=2)
    for name, more in {
        "frame by frame": {"frames_at_a_time": 1},
        "two frames at a time, the last alone": {"frames_at_a_time": 2, "sides": (5, 4, 6)},
        "frame by frame, from a picture, two videos": {"frames_at_a_time": 1, "begin": numbers(2, 16, 1, 6, 8), "batch": 2},
    }.items():
        add(name, "causal", **more)
    add("text, bf16", model_options={"dtype": torch.bfloat16})
    add("text, fp8", model_options={"dtype": torch.float8_e4m3fn})
    add("2.2 picture", options=picture, sizes={"channels": 36})
    add("2.2 picture, other sides", options={**picture, "concat_latent_image": numbers(1, 16, 3, 8, 6)}, sizes={"channels": 36})
    add("2.2 first and last frame", options=by_frame, sizes={"channels": 36})
    add("2.2 without a picture", sizes={"channels": 36})
    control = {"concat_latent_image": numbers(1, 32, 3, 6, 8), "concat_mask": frames.repeat(1, 4, 1, 1, 1), "concat_mask_index": 16}
    reference = {"reference_latents": [numbers(1, 16, 1, 6, 8)]}
    add("2.2 control", options=control, sizes={"channels": 52})
    add("2.2 control, picture before", options={**control, **reference}, sizes={"channels": 52, "reference": 16})
    add("2.2 control, no picture before", options=control, sizes={"channels": 52, "reference": 16})
    add("2.1 picture", "i2v", options={**picture, **vision(numbers)})
    add("2.1 picture, not seen", "i2v", options=picture)
    add("2.1 nothing", "i2v")
    add("2.1 two pictures", "flf", options={**by_frame, **vision(numbers, 514)})
    add("2.1 control", "control", options={"concat_latent_image": control["concat_latent_image"], **vision(numbers)})
    add("subjects", options={"time_dim_concat": numbers(1, 16, 2, 6, 8)})
    add("videos to look at", options={"context_latents": [numbers(1, 16, 3, 6, 8), numbers(1, 16, 1, 4, 6)]})
    vace = {"vace_frames": [numbers(1, 32, 3, 6, 8)], "vace_mask": [numbers(1, 64, 3, 6, 8)], "vace_strength": [0.7]}
    twice = {name: values * 2 for name, values in vace.items()}
    vace_sizes = {"depth": 4, "vace_depth": 2}
    add("vace", "vace", options=vace, sizes=vace_sizes)
    add("vace, two videos", "vace", options=twice, sizes=vace_sizes)
    add("vace, none", "vace", sizes=vace_sizes)
    rays = {"camera_conditions": numbers(1, 24, 3, 48, 64)}
    add("2.1 camera", "camera", options={**rays, "concat_latent_image": picture["concat_latent_image"], **vision(numbers)})
    add("2.2 camera", "camera_2.2", options={**rays, **picture})
    add("2.2 camera that stands still", "camera_2.2", options=picture)
    add("5b", "5b")
    add("5b picture", "5b", latent=numbers(1, 48, 3, 6, 8), noise_mask=frames)
    add("5b control", "5b", sizes={"channels": 148}, options={**control, "concat_latent_image": numbers(1, 96, 3, 6, 8)})
    moves = {**picture, **vision(numbers), "pose_video_latent": numbers(1, 16, 2, 6, 8)}
    seen = {"cross_attn_pose": numbers(1, 5, CONTEXT), "pose_strength": 0.6, "reference_strength": 1.7}
    add("2 moves as a video", "animate2", options=moves)
    add(
        "2 moves, told of the video, odd sides",
        "animate2",
        sides=(3, 5, 7),
        options={**moves, **seen, "pose_video_latent": numbers(1, 16, 2, 5, 7)},
    )
    add("2 moves at first", "animate2", options=moves, late={**picture, **vision(numbers)})
    add("2 moves, kept over steps", "animate2", options=moves, cache="default", steps=3)
    add("2 moves, kept in few bits", "animate2", options=moves, cache="int8", steps=3)
    figure_cases(add, numbers, picture)
    pictures = [numbers(1, 16, 1, 6, 8), numbers(1, 16, 1, 6, 8)]
    figure = {"reference_latents": pictures[:1], "pose_video_latent": numbers(1, 16, 3, 3, 4), **vision(numbers)}
    masks = {"ref_mask_28ch": numbers(1, 4, 28, 6, 8), "driving_mask_28ch": numbers(1, 3, 28, 3, 4)}
    odd = {"reference_latents": [numbers(1, 16, 1, 5, 7)], "pose_video_latent": numbers(1, 16, 3, 2, 3)}
    add("figures", "scail", options=figure)
    add("figures, odd sides", "scail", sides=(3, 5, 7), options=odd)
    add("figures, poses alone", "scail", options={"pose_video_latent": figure["pose_video_latent"]}, batch=2)
    add("several figures", "scail2", options={**figure, **masks, "ref_mask_flag": True})
    add("figures replaced", "scail2", options={**figure, **masks, "ref_mask_flag": False})
    several = {**figure, **masks, "reference_latents": pictures, "ref_mask_28ch": numbers(1, 5, 28, 6, 8), "ref_mask_flag": False}
    add("figures replaced, two pictures", "scail2", options=several, batch=2)
    add("figures go on", "scail2", options=figure, latent=numbers(1, 16, 3, 6, 8), noise_mask=frames)
    long = {"sides": (9, 6, 8), "steps": 3}
    masked = {"ref_mask_28ch": torch.zeros(1, 10, 28, 6, 8), "driving_mask_28ch": numbers(1, 9, 28, 3, 4), "ref_mask_flag": True}
    masked["ref_mask_28ch"][:, 0] = numbers(28, 6, 8)
    add("windows, figures", "scail2", **long, windows={}, options={**figure, **masked, "pose_video_latent": numbers(1, 16, 9, 3, 4)})
    frame = torch.ones(1, 1, 9, 6, 8)
    frame[:, :, :1] = 0.0
    begun = {"concat_latent_image": numbers(1, 16, 9, 6, 8), "concat_mask": frame, **vision(numbers)}
    for schedule in ("standard_static", "standard_uniform", "looped_uniform", "batched"):
        add(f"windows, {schedule}", **long, windows={"context_schedule": schedule, "context_stride": 2, "closed_loop": True})
    for fuse in ("relative", "flat", "overlap-linear"):
        add(f"windows, {fuse}", **long, windows={"fuse_method": fuse})
    add("windows, nothing before", **long, windows={"causal_window_fix": False, "freenoise": True})
    kept = {"cond_retain_index_list": "0", "latent_retain_index_list": "0, 1"}
    add("windows, picture kept", "i2v", **long, options=begun, windows=kept)
    add(
        "windows, vace",
        "vace",
        **long,
        sizes=vace_sizes,
        windows={},
        options={"vace_frames": [numbers(1, 32, 9, 6, 8)], "vace_mask": [numbers(1, 64, 9, 6, 8)]},
    )
    add(
        "windows, 2 moves",
        "animate2",
        **long,
        options={**begun, "pose_video_latent": numbers(1, 16, 8, 6, 8)},
        windows=kept,
        cache="default",
    )
    parts = {"split_conds_to_windows": True}
    add("windows, several texts", **long, windows=parts, late={})
    shifted = {"shift": 5.0, "steps": 3}
    add("shifted", **shifted)
    return made.cases


def figure_cases(add, numbers, picture):
    """Those of Wan 2.2's Animate: a *picture*'s latents before two frames, as its node makes them."""
    sizes = {"depth": 10, "narrow_faces": 1}
    pose, face = numbers(1, 16, 2, 6, 8), spots(numbers, 5)
    moves = {**picture, "pose_video_latent": pose, **vision(numbers)}
    without = {"negative_options": {"face_video_pixels": torch.full_like(face, -1.0)}}
    around = torch.zeros(1, 4, 3, 6, 8)
    around[:, :, 1:, 2:5, 3:] = 1.0
    goes_on = torch.ones(1, 4, 3, 6, 8)
    goes_on[:, :, :2] = 0.0
    faced = {**moves, "face_video_pixels": face}
    add("figure", "animate", options=picture, sizes=sizes)
    add("figure, poses", "animate", options=moves, sizes=sizes)
    add("figure, poses and a face", "animate", options=faced, sizes=sizes, **without)
    add("figure, a face alone", "animate", options={**picture, "face_video_pixels": face}, sizes=sizes, **without)
    add("figure, poses and a face, bf16", "animate", options=faced, sizes=sizes, **without, model_options={"dtype": torch.bfloat16})
    changed = {
        "face_adapter.fuser_blocks.1.linear1_kv": (512, 256),
        "blocks.3.self_attn.q": (256, 256),
        "motion_encoder.enc.fc.2": (512, 512),
    }
    lora = {f"diffusion_model.{name}.lora_A.weight": numbers(4, inner) for name, (_, inner) in changed.items()}
    lora |= {f"diffusion_model.{name}.lora_B.weight": numbers(outer, 4) * 0.02 for name, (outer, _) in changed.items()}
    add("figure, LoRA", "animate", options=faced, sizes=sizes, **without, lora=lora)
    add("figure, background", "animate", options={**faced, "concat_mask": around}, sizes=sizes, **without)
    add("figure goes on", "animate", options={**faced, "concat_mask": goes_on}, sizes=sizes, **without)
    published = {**moves, "face_video_pixels": face[:, :, :1]}
    add("figure, a face in the published sizes", "animate", options=published, sizes={"depth": 5}, cfg=1.0, steps=1)
    few = {**moves, "pose_video_latent": pose[:, :, :1], "face_video_pixels": face[:, :, :1]}
    add("figure, two videos, poses that end", "animate", options=few, sizes=sizes, batch=2)
    frame = torch.ones(1, 4, 9, 6, 8)
    frame[:, :, :1] = 0.0
    long = {"concat_latent_image": numbers(1, 16, 9, 6, 8), "concat_mask": frame, "pose_video_latent": numbers(1, 16, 8, 6, 8)}
    long["face_video_pixels"] = spots(numbers, 29)
    kept = {"cond_retain_index_list": "0", "latent_retain_index_list": "0"}
    add("windows, figure", "animate", sides=(9, 6, 8), steps=2, options={**long, **vision(numbers)}, sizes=sizes, windows=kept)


def spots(numbers, frames):
    """Pictures of a face: large spots, which are told apart however much they are averaged."""
    return torch.nn.functional.interpolate(numbers(1, 3 * frames, 8, 8), (512, 512)).clamp(-1, 1).unflatten(1, (3, frames))


def test_latents_are_upstreams(tmp_path):
    cases_file = tmp_path / "cases.pt"
    cases = wan_cases(tmp_path)
    torch.save(cases, cases_file)
    ours, theirs = results_of_both("videos/video_model_runs.py", tmp_path, [cases_file])
    assert ours.keys() == theirs.keys() == cases.keys()
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:34} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    text = ours["text"]
    assert not [name for name, latent in ours.items() if name != "text" and latent.shape == text.shape and torch.equal(latent, text)]


def test_wan_2_2_latents_and_pictures_are_upstreams(tmp_path):
    numbers = Numbers()
    pictures = [numbers(frames, 64, 96, 3).sigmoid() for frames in (1, 6, 9)]
    latents = [numbers(1, 48, 3, 6, 8), numbers(1, 48, 1, 3, 4)]
    case = {"vae": wan_vae_tensors(layout=wan22_vae_layout), "pictures": pictures, "latents": latents}
    torch.save({"vae": case}, tmp_path / "cases.pt")
    ours, theirs = (results["vae"] for results in results_of_both("videos/video_model_runs.py", tmp_path, [tmp_path / "cases.pt"]))
    for own, other in zip(ours[:3], theirs[:3], strict=True):
        assert (own - other).norm() <= BOUND * other.norm()
    for own, other in zip(ours[3:], theirs[3:], strict=True):
        assert own.shape == other.shape and (own - other).abs().max() <= LEVEL and own.std() > 0.05


def test_nodes_give_what_upstreams_give(tmp_path):
    ours, theirs = results_of_both("videos/video_model_node_runs.py", tmp_path)
    assert ours.keys() == theirs.keys() and len(theirs) > 30
    different = {}
    for case, expected in theirs.items():
        own = ours[case]
        if own.keys() != expected.keys():
            different[case] = sorted(own.keys() ^ expected.keys())
            continue
        for name, value in expected.items():
            if own[name].shape != value.shape or not torch.allclose(own[name].float(), value.float(), rtol=1e-5, atol=1e-5):
                different[f"{case}{name}"] = (own[name].shape, value.shape)
    assert not different
