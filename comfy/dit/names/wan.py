"""What diffusers and LoRA trainers call the weights of Wan's networks."""

from __future__ import annotations

from collections.abc import Iterable

from comfy.dit.family import Config, DiffusersNames, Place, Shapes, Target
from comfy.families.sd_unet_config import count_blocks

WEIGHT = ".weight"
MODULE = "diffusion_model."
MOTION = "motion_encoder.enc.net_app.convs."
# Those of the network as a whole, of a block, and of attention to a picture.
ONCE = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
    "vace_patch_embedding": "vace_patch_embedding",
    "pose_patch_embedding": "pose_patch_embedding",
    "face_encoder.out_proj": "face_encoder.out_proj",
    "motion_encoder.conv_in": "motion_encoder.enc.net_app.convs.0.0",
    **{f"face_encoder.{name}": f"face_encoder.{name}.conv" for name in ("conv1_local", "conv2", "conv3")},
    **{f"motion_encoder.motion_network.{number}": f"motion_encoder.enc.fc.{number}" for number in range(5)},
}
IN_FACE_BLOCK = {"to_q": "linear1_q", "to_out": "linear2", "norm_q": "q_norm", "norm_k": "k_norm"}
IN_ATTENTION = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
}
IN_BLOCK = {
    **{f"attn1.{name}": f"self_attn.{own}" for name, own in IN_ATTENTION.items()},
    **{f"attn2.{name}": f"cross_attn.{own}" for name, own in IN_ATTENTION.items()},
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "proj_in": "before_proj",
    "proj_out": "after_proj",
}


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs, for the numbers of blocks in *config*."""
    places = {"scale_shift_table": Place("head.modulation"), "condition_embedder.image_embedder.pos_embed": Place("img_emb.emb_pos")}
    places |= _places_of_faces(config)
    for leaf in ("weight", "bias"):
        places |= {f"{name}.{leaf}": Place(f"{own}.{leaf}") for name, own in ONCE.items()}
        for stack in ("blocks", "vace_blocks"):
            for number in range(config[stack]):
                places |= {f"{stack}.{number}.{name}.{leaf}": Place(f"{stack}.{number}.{own}.{leaf}") for name, own in IN_BLOCK.items()}
    for stack in ("blocks", "vace_blocks"):
        places |= {f"{stack}.{n}.scale_shift_table": Place(f"{stack}.{n}.modulation") for n in range(config[stack])}
    return places


def _places_of_faces(config: Config) -> dict[str, Place]:
    """Where the tensors belong that only Animate has, besides those in ``ONCE``."""
    encoder, halvings = "motion_encoder", config.get("halvings", 0)
    places = {
        f"{encoder}.motion_synthesis_weight": Place(f"{encoder}.dec.direction.weight"),
        "face_encoder.padding_tokens": Place("face_encoder.padding_tokens"),
    }
    places |= {
        f"{encoder}.conv_in.act_fn.bias": Place(f"{MOTION}0.1.bias", channels=True),
        f"{encoder}.conv_out.weight": Place(f"{MOTION}{halvings + 1}.weight"),
    }
    for number in range(halvings):
        theirs, own = f"{encoder}.res_blocks.{number}", f"{MOTION}{number + 1}"
        for name, place in (("conv1", "conv1.0"), ("conv2", "conv2.1"), ("conv_skip", "skip.1")):
            places[f"{theirs}.{name}.weight"] = Place(f"{own}.{place}.weight")
        for name, place in (("conv1", "conv1.1"), ("conv2", "conv2.2")):
            places[f"{theirs}.{name}.act_fn.bias"] = Place(f"{own}.{place}.bias", channels=True)
    for number in range(config.get("face_adapter", 0)):
        theirs, own = f"face_adapter.{number}", f"face_adapter.fuser_blocks.{number}"
        for leaf in ("weight", "bias"):
            places |= {f"{theirs}.{name}.{leaf}": Place(f"{own}.{place}.{leaf}") for name, place in IN_FACE_BLOCK.items()}
            both = f"{own}.linear1_kv.{leaf}"
            places |= {
                f"{theirs}.{name}.{leaf}": Place(both, row * config["width"], config["width"]) for row, name in enumerate(("to_k", "to_v"))
            }
    return places


def halvings_of(names: Iterable[str], prefix: str = "") -> int:
    """How often Animate's encoder of faces halves its picture, by the *names* of its weights, *prefix* included."""
    return count_blocks(names, prefix + MOTION + "{}.") - 2


def _diffusers_sizes(shapes: Shapes) -> Config:
    counts = {stack: count_blocks(shapes, stack + ".{}.") for stack in ("blocks", "vace_blocks", "face_adapter")}
    return {**counts, "halvings": count_blocks(shapes, "motion_encoder.res_blocks.{}."), "width": shapes["scale_shift_table"][-1]}


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """diffusers' names as trainers write them, and the published ones without a prefix."""
    known = set(keys)
    sizes = {"blocks": config["num_layers"], "vace_blocks": config.get("vace_layers") or 0, "width": config["dim"]}
    if config["model_type"] == "animate":
        blocks = count_blocks(known, f"{MODULE}face_adapter.fuser_blocks.{{}}.")
        sizes |= {"face_adapter": blocks, "halvings": halvings_of(known, MODULE)}
    names: dict[str, Target] = {}
    for key in known:
        if key.startswith(MODULE) and key.endswith(WEIGHT):
            bare = key.removeprefix(MODULE).removesuffix(WEIGHT)
            names |= dict.fromkeys((bare, f"transformer.{bare}", f"lycoris_{bare.replace('.', '_')}"), key)
    for name, place in diffusers_places(sizes).items():
        if name.endswith(WEIGHT) and MODULE + place.key in known:
            bare = name.removesuffix(WEIGHT)
            spellings = (bare, f"transformer.{bare}", f"{MODULE}{bare}", f"lycoris_{bare.replace('.', '_')}")
            target: Target = (MODULE + place.key, (0, place.start, place.length)) if place.length else MODULE + place.key
            for spelling in spellings:  # "proj_out" of diffusers is the whole network's, "norm2" another layer's than the published one
                names.setdefault(spelling, target)
    return names


DIFFUSERS = DiffusersNames(
    ("condition_embedder.time_proj.weight", "condition_embedder.text_embedder.linear_1.weight", "scale_shift_table"),
    _diffusers_sizes,
    diffusers_places,
)
