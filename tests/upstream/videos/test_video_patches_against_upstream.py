"""Model patches of video models do what upstream's do: same files, frames, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos -k patches_do
"""

import torch
from both_trees import against_upstream, results_of_both
from video_patch_files import duration_tensors, patch_file, uni3c_tensors
from wan_files import wan_file

BOUND = 1e-3
SEEN = 0.003  # by how much of its length the ControlNet changes the latent at least
CONTEXT = 4096  # the only width of text that upstream knows

pytestmark = against_upstream(600)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def film(frames, height, width, seed=5):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


def uni3c_cases(folder):
    """Wan with and without further channels; renderings that are shorter, longer, of other sides; parts of the sampling."""
    wan = {"context": CONTEXT, "width": 256, "depth": 3}
    text = {"model": wan_file(folder / "text.safetensors", "t2v", **wan), "cfg": 2.0, "noise": numbers(1, 16, 3, 6, 8)}
    text |= {"positive": [[numbers(1, 7, CONTEXT, seed=1), {}]], "negative": [[numbers(1, 5, CONTEXT, seed=2), {}]]}
    frames = torch.ones(1, 1, 3, 6, 8)
    frames[:, :, :1] = 0.0
    options = {"concat_latent_image": numbers(1, 16, 3, 6, 8, seed=3), "concat_mask": frames}
    picture = {"model": wan_file(folder / "picture.safetensors", "t2v", channels=36, **wan)}
    picture |= {side: [[text[side][0][0], options]] for side in ("positive", "negative")}
    inputs = {"render_video": film(9, 48, 64), "strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
    patch = {"patch": patch_file(folder / "uni3c.safetensors", uni3c_tensors(256)), "inputs": inputs}
    half = {"patch": patch_file(folder / "half.safetensors", uni3c_tensors(256, blocks=3), torch.float16)}
    own = {"patch": patch_file(folder / "own.safetensors", {k.replace(".to_out.0.", ".o."): v for k, v in uni3c_tensors(256).items()})}
    return {
        "text": text,
        "text, rendering": text | patch,
        "text, two videos, one prompt": text | patch | {"noise": numbers(2, 16, 3, 6, 8), "cfg": 1.0},
        "text, two videos": text | patch | {"noise": numbers(2, 16, 3, 6, 8)},
        "text, half": text | patch | half,
        "text, own names": text | patch | own,
        "picture": text | picture,
        "picture, rendering": text | picture | patch,
        "picture, short, other sides": text | picture | patch | {"inputs": {**inputs, "render_video": film(4, 40, 90)}},
        "picture, long, part": text | picture | patch | {"inputs": {**inputs, "render_video": film(20, 48, 64), "start_percent": 0.3}},
        "picture, at first": text | picture | patch | {"inputs": {**inputs, "end_percent": 0.5, "strength": -1.0}},
    }


def duration_cases(folder):
    """The head alone and in a checkpoint; short, long and bounded shots."""
    settings = [(24.0, 1.0, 20.0), (25.0, 0.5, 2.0), (30.0, 9.0, 12.0), (12.5, 1.0, 1.1), (24.0, 8.0, 4.0)]
    case = {"tokens": numbers(1, 12, 4096 + 2048, seed=4), "width": 4096, "settings": settings}
    prefix = "model.diffusion_model.duration_head."
    return {
        "duration": case | {"patch": patch_file(folder / "head.safetensors", duration_tensors())},
        "duration in bf16": case | {"patch": patch_file(folder / "bf16.safetensors", duration_tensors(seed=2), torch.bfloat16)},
        "duration in a checkpoint": case | {"patch": patch_file(folder / "all.safetensors", duration_tensors(prefix=prefix, seed=3))},
    }


def test_patches_do_what_upstreams_do(tmp_path):
    cases = uni3c_cases(tmp_path) | duration_cases(tmp_path)
    torch.save(cases, tmp_path / "cases.pt")
    ours, theirs = results_of_both("videos/video_patch_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert theirs.keys() == ours.keys() == cases.keys()
    differences = {name: ((ours[name] - found).norm() / found.norm()).item() for name, found in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:30} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    for name, case in cases.items():
        without = ours.get(name.partition(",")[0])
        if "inputs" in case and len(without) == len(ours[name]):
            assert (ours[name] - without).norm() > SEEN * without.norm(), name
