"""Models that outline things, over HTTP: masks of pictures and of videos, from small checkpoints."""

import io

import pytest
import torch
from birefnet_files import birefnet_file
from image_family_files import vae_tensors
from picture_prompts import node
from PIL import Image
from rt_detr_files import rt_detr_file
from safetensors.torch import save_file
from sam3_files import sam3_file
from sdpose_files import sdpose_tensors

from comfy.families.kl_vae_config import KlVaeConfig

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


SIZE = (56, 40)
START_S = 600  # on a machine that does much else


def with_models(server):
    """*server*, with a small model of each kind and a picture."""
    for folder in ("models/checkpoints", "models/background_removal", "input"):
        (server.base / folder).mkdir(parents=True, exist_ok=True)
    sam3_file(server.base / "models" / "checkpoints" / "sam3.1_small.safetensors")
    levels = (torch.rand(*reversed(SIZE), 3, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    Image.fromarray(levels.numpy()).save(server.base / "input" / "noise.png")
    return server


def pictures(run):
    """The receipts of a prompt that succeeded, and the pictures that it saved."""
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    stills = [number for number, file in enumerate(run.files) if file["filename"].endswith(".png")]
    opened = [Image.open(io.BytesIO(run.file_bytes(number))).convert("RGB") for number in stills]
    return {receipt["tier"] for receipt in run.history["models"]}, opened


LOADED = {"model": node("CheckpointLoaderSimple", ckpt_name="sam3.1_small.safetensors"), "image": node("LoadImage", image="noise.png")}


def outlined(text):
    """What *text* names in the picture, a mask for each thing."""
    choices = {"threshold": 0.0, "refine_iterations": 1, "individual_masks": True}
    return LOADED | {
        "text": node("CLIPTextEncode", clip=["model", 1], text=text),
        "masks": node("SAM3_Detect", model=["model", 0], image=["image", 0], conditioning=["text", 0], **choices),
        "shown": node("MaskToImage", mask=["masks", 0]),
        "saved": node("SaveImage", images=["shown", 0], filename_prefix="mask"),
    }


def followed(text):
    """The same in a video, and in colours for SCAIL-2."""
    choices = {"detection_threshold": 0.1, "max_objects": 2, "detect_interval": 1}
    colours = {"object_indices": "", "sort_by": "left_to_right", "replacement_mode": False}
    return LOADED | {
        "text": node("CLIPTextEncode", clip=["model", 1], text=text),
        "frames": node("RepeatImageBatch", image=["image", 0], amount=3),
        "track": node("SAM3_VideoTrack", images=["frames", 0], model=["model", 0], conditioning=["text", 0], **choices),
        "coloured": node("SCAIL2ColoredMask", driving_track_data=["track", 0], **colours),
        "video": node("SaveImage", images=["coloured", 0], filename_prefix="video"),
        "preview": node("SAM3_TrackPreview", track_data=["track", 0], images=["frames", 0], opacity=0.5, fps=8.0),
    }


def test_sam3_outlines_and_follows_what_a_text_names_and_is_read_once(start_server):
    server = with_models(start_server("--cache-none", "--ram-model-cache-mb", "1000", start_timeout_s=START_S))
    tiers, masks = pictures(server.run(outlined("cat:2, dog"), timeout_s=300))
    assert tiers == {"disk"} and [mask.size for mask in masks] == [SIZE] * 3
    assert any(mask.getextrema()[0] == (0, 255) for mask in masks)
    run = server.run(followed("a cat"), timeout_s=300)
    tiers, _ = pictures(run)
    assert tiers and "disk" not in tiers
    assert len(run.history["outputs"]["video"]["images"]) == 3
    (shown,) = run.history["outputs"]["preview"]["images"]
    assert shown["filename"].endswith(".mp4") and shown["type"] == "temp"


def test_backgrounds_things_and_poses_are_found(start_server):
    server = with_models(start_server("--ram-model-cache-mb", "1000", start_timeout_s=START_S))
    models = server.base / "models"
    birefnet_file(models / "background_removal" / "birefnet.safetensors")
    (models / "diffusion_models").mkdir(parents=True, exist_ok=True)
    rt_detr_file(models / "diffusion_models" / "rt_detr.safetensors")
    pose = {f"model.diffusion_model.{name}": value for name, value in sdpose_tensors().items()}
    vae = vae_tensors(KlVaeConfig(3, 4, (32, 32, 64, 64), 1, True))
    save_file(pose | {f"first_stage_model.{name}": value for name, value in vae.items()}, models / "checkpoints" / "sdpose.safetensors")
    image = {"image": node("LoadImage", image="noise.png")}
    style = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": True, "draw_head": True}
    style |= {"stick_width": 4, "face_point_size": 2, "score_threshold": 0.0}
    prompt = image | {
        "remover": node("LoadBackgroundRemovalModel", bg_removal_name="birefnet.safetensors"),
        "mask": node("RemoveBackground", bg_removal_model=["remover", 0], image=["image", 0]),
        "shown": node("MaskToImage", mask=["mask", 0]),
        "saved mask": node("SaveImage", images=["shown", 0], filename_prefix="mask"),
        "detector": node("UNETLoader", unet_name="rt_detr.safetensors", weight_dtype="default"),
        "boxes": node("RTDETR_detect", model=["detector", 0], image=["image", 0], threshold=0.0, class_name="all", max_detections=2),
        "pose model": node("CheckpointLoaderSimple", ckpt_name="sdpose.safetensors"),
        "points": node(
            "SDPoseKeypointExtractor", model=["pose model", 0], vae=["pose model", 2], image=["image", 0], batch_size=1, bboxes=["boxes", 0]
        ),
        "drawn": node("SDPoseDrawKeypoints", keypoints=["points", 0], **style),
        "saved pose": node("SaveImage", images=["drawn", 0], filename_prefix="pose"),
    }
    run = server.run(prompt, timeout_s=800)
    _, saved = pictures(run)
    assert [picture.size for picture in saved] == [SIZE] * 2 and len(run.history["models"]) >= 3
