"""Computes what BiRefNet and SDPose's head give with the ``comfy`` package that Python finds, and saves it.

    python outline_runs.py CASES_FILE RESULTS_FILE

ComfyUI knows BiRefNet's published sizes alone: its source is run with those of CASES_FILE in their place. That file holds ``birefnet`` (a
state dict in the published names), ``pictures``, ``head`` (a state dict), ``features`` and ``frames`` (points of people, to be drawn).
"""

import inspect
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.ops  # noqa: E402

SMALLER = {
    "[1536, 768, 384, 192]": "[64, 32, 16, 8]",
    "embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12": (
        "embed_dim=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4], window_size=4"
    ),
}
STYLE = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": True, "stick_width": 4, "face_point_size": 2}


def has_operators():
    """Whether torchvision has those of its own; builds for another torch have none."""
    from torchvision.extension import _has_ops

    return _has_ops()


def by_definition(input, offset, weight, bias, stride, padding, mask):
    """torchvision's ``deform_conv2d`` (stride 1): each place of the kernel, cell by cell, from its four neighbours."""
    (height, width), side = input.shape[-2:], weight.shape[-1]
    padded = torch.nn.functional.pad(input, (1, 1, 1, 1))
    total = 0
    for place in range(side * side):
        y = torch.arange(height)[:, None] + place // side - padding + offset[0, 2 * place]
        x = torch.arange(width) + place % side - padding + offset[0, 2 * place + 1]
        value = 0
        for down in (0, 1):
            for right in (0, 1):
                row, column = y.floor() + down, x.floor() + right
                share = (1 - (y - row).abs()) * (1 - (x - column).abs())
                row, column = ((at.clamp(-1, limit) + 1).long() for at, limit in ((row, height), (column, width)))
                value = value + share * padded[0, :, row, column]
        total = total + torch.einsum("oc,chw->ohw", weight[:, :, place // side, place % side], value * mask[0, place])
    return total[None]


def birefnet(weights):
    """The network of either tree with *weights*."""
    import comfy.bg_removal_model as models

    if hasattr(models, "load_background_removal_model") and hasattr(models, "_from_source"):
        return models.load_background_removal_model(weights).model
    import comfy.background_removal.birefnet as theirs

    source = inspect.getsource(theirs)
    for old, new in SMALLER.items():
        assert old in source
        source = source.replace(old, new)
    names = {}
    names.update(__name__="birefnet")
    exec(compile(source, "birefnet", "exec"), names)  # noqa: S102 - a checkout that whoever runs this chose
    if not has_operators():
        names["deform_conv2d"] = by_definition
    model = names["BiRefNet"]({}, torch.float32, torch.device("cpu"), comfy.ops.manual_cast).eval()
    missing, _ = model.load_state_dict(weights, strict=False)
    assert all("relative_position_index" in name or "spvn" in name or "gdt_convs_pred" in name for name in missing), missing
    return model


def head(weights, channels, points):
    """SDPose's head of either tree with *weights*."""
    from comfy.ldm.modules.sdpose import HeatmapHead

    if "in_channels" in inspect.signature(HeatmapHead).parameters:
        sizes = {"deconv_out_channels": (channels,), "conv_out_channels": (channels,)}
        made = HeatmapHead(channels, points, operations=comfy.ops.disable_weight_init, **sizes)
    else:
        made = HeatmapHead(channels, points)
    made.load_state_dict(weights)
    return made


def main(cases_file, results_file):
    """Run all and save."""
    cases = torch.load(cases_file, weights_only=False)
    with torch.inference_mode():
        results = {"birefnet": birefnet(cases["birefnet"])(cases["pictures"])}
        final = cases["head"]["final_layer.weight"]
        places, scores = head(cases["head"], final.shape[1], final.shape[0])(cases["features"])
        results |= {"places": torch.tensor(places[0]), "scores": torch.tensor(scores[0])}
        from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints, SDPoseFaceBBoxes

        results["drawn"] = SDPoseDrawKeypoints.execute(cases["frames"], **STYLE, score_threshold=0.3, draw_head=True).args[0]
        results["faces"] = SDPoseFaceBBoxes.execute(cases["frames"], 1.5, True).args[0]
    torch.save(results, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
