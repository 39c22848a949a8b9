"""Small checkpoints of Stable Video Diffusion with random weights in the published names."""

import torch
from safetensors.torch import save_file
from transformer_files import random_weight
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.published_layout import vae_layout
from comfy.families.sd_unet_config import UNetConfig
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

SEEN, VECTOR = 48, 768
SMALL = UNetConfig(
    in_channels=8,
    out_channels=4,
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    depths=(1, 1),
    output_depths=(1, 1, 1, 1),
    middle_depth=1,
    context_dim=SEEN,
    use_linear=True,
    adm_in_channels=VECTOR,
    num_heads=-1,
    num_head_channels=64,
    is_video=True,
)
SMALL_VAE = KlVaeConfig(3, 4, (32, 32, 64, 64), 2, quant_conv=False)
EYES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 1, "image_size": 28, "patch_size": 14}


def unet_tensors(seed: int = 0, config: UNetConfig = SMALL) -> dict[str, torch.Tensor]:
    """The network's."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: tuple(value.shape) for name, value in UNetModel(**config.as_dict()).named_parameters()}
    tensors = {name: random_weight(name, shape, generator) for name, shape in shapes.items()}
    return {name: torch.randn(1, generator=generator) if name.endswith("mix_factor") else value for name, value in tensors.items()}


def frames_vae_layout(config: KlVaeConfig = SMALL_VAE) -> dict[str, tuple[int, ...]]:
    """{published name: shape} of the autoencoder."""
    shapes = vae_layout(config)
    for name, shape in list(shapes.items()):
        if name.startswith("decoder.") and name.endswith(".norm2.weight"):
            block, width = name.removesuffix(".norm2.weight"), shape[0]
            shapes[f"{block}.mix_factor"] = (1,)
            for layer in ("in_layers.0", "in_layers.2", "out_layers.0", "out_layers.3"):
                shapes[f"{block}.time_stack.{layer}.weight"] = (width,) if layer.endswith("0") else (width, width, 3, 1, 1)
                shapes[f"{block}.time_stack.{layer}.bias"] = (width,)
    last = config.image_channels
    return shapes | {"decoder.conv_out.time_mix_conv.weight": (last, last, 3, 1, 1), "decoder.conv_out.time_mix_conv.bias": (last,)}


def frames_vae_tensors(seed: int = 0, config: KlVaeConfig = SMALL_VAE) -> dict[str, torch.Tensor]:
    """The autoencoder's."""
    generator = torch.Generator().manual_seed(seed)
    return {name: random_weight(name, shape, generator) for name, shape in frames_vae_layout(config).items()}


def svd_tensors() -> dict[str, torch.Tensor]:
    """A checkpoint's: the network, the autoencoder, the image encoder."""
    torch.manual_seed(4)
    eyes = CLIPVisionModelWithProjection(CLIPVisionConfig(**EYES, projection_dim=SEEN, hidden_act="gelu"))
    seen = {key: value.detach() for key, value in eyes.state_dict().items() if not key.endswith("position_ids")}
    return {
        **{f"model.diffusion_model.{name}": value for name, value in unet_tensors().items()},
        **{f"first_stage_model.{name}": value for name, value in frames_vae_tensors().items()},
        **{f"conditioner.embedders.0.open_clip.model.visual.{name}": value for name, value in seen.items()},
    }


def svd_file(path) -> str:
    """*path*, after such a checkpoint was written there."""
    save_file(svd_tensors(), str(path))
    return str(path)
