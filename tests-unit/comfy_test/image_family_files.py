"""Small models of image families with random weights in the published names, and text models for them."""

import torch
from transformer_files import config_of, random_tensors, random_weight
from wan_vae_files import Layout

from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.published_layout import vae_layout
from comfy.ldm.mage_flow.vae import MageSizes, MageVAE


def numbers(*shape, seed=0):
    """Normal ones."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flux2_config(*, width: int = 256, depth: int = 2, single: int = 2, context: int = 96, guidance: bool = True) -> dict:
    """The ``unet_config`` of a small Flux.2; heads have their 128 channels."""
    return config_of(
        {
            "double_stream_modulation_img.lin.weight": (width * 6, width),
            "img_in.weight": (width, 128),
            "txt_in.weight": (width, context),
            **({"guidance_in.in_layer.weight": (width, 256)} if guidance else {}),
            **{f"double_blocks.{number}.": () for number in range(depth)},
            **{f"single_blocks.{number}.": () for number in range(single)},
        }
    )


def flux2_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Flux.2 in the authors' names."""
    return random_tensors(flux2_config(**sizes), seed, dtype)


FLUX2_VAE = KlVaeConfig(3, 32, (32, 32, 64, 64), 1, True, decoder_channels=(64, 64, 128, 128), normalised=True)


def sd3_config(
    *, depth: int = 2, context: int = 48, pooled: int = 32, side: int | None = 12, twice: tuple[int, ...] = (), normalised: bool = False
) -> dict:
    """The ``unet_config`` of a small Stable Diffusion 3; *twice* are the blocks in which the picture attends to itself as well."""
    width = 64 * depth
    return config_of(
        {
            "x_embedder.proj.weight": (width, 16, 2, 2),
            "final_layer.linear.weight": (64, width),
            "y_embedder.mlp.0.weight": (width, pooled),
            "context_embedder.weight": (width, context),
            "joint_blocks.0.context_block.attn.qkv.weight": (3 * width, width),
            **({"joint_blocks.0.context_block.attn.ln_q.weight": (64,)} if normalised else {}),
            **({} if side is None else {"pos_embed": (1, side * side, width)}),
            **{f"joint_blocks.{number}.": () for number in range(depth)},
            **{f"joint_blocks.{number}.x_block.attn2.qkv.weight": (3 * width, width) for number in twice},
        }
    )


def sd3_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small Stable Diffusion 3 in the authors' names."""
    return random_tensors(sd3_config(**sizes), seed)


def cosmos_config(
    *,
    width: int = 256,
    depth: int = 2,
    context: int = 32,
    channels: int = 16,
    lora: int = 16,
    adapter: int | None = None,
    vocabulary: int = 300,
) -> dict:
    """The ``unet_config`` of a small Cosmos-Predict2, or of Anima for Qwen's states of width *adapter*; heads have their 128 channels."""
    first = "llm_adapter.blocks.0."
    of_adapter = {
        "llm_adapter.embed.weight": (vocabulary, context),
        f"{first}cross_attn.q_proj.weight": (64, 64),
        f"{first}cross_attn.k_proj.weight": (64, adapter),
        f"{first}cross_attn.q_norm.weight": (32,),
        f"{first}mlp.2.weight": (64, 256),
        "llm_adapter.blocks.1.": (),
    }
    return config_of(
        {
            "x_embedder.proj.1.weight": (width, (channels + 1) * 4),
            "blocks.0.mlp.layer1.weight": (4 * width, width),
            "blocks.0.cross_attn.k_proj.weight": (width, context),
            "blocks.0.adaln_modulation_mlp.1.weight": (lora, width),
            **{f"blocks.{number}.": () for number in range(depth)},
            **(of_adapter if adapter else {}),
        }
    )


def cosmos_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small Cosmos-Predict2 or Anima in the published names."""
    return random_tensors(cosmos_config(**sizes), seed)


def chroma_config(*, width: int = 256, depth: int = 2, single: int = 2, context: int = 48, inner: int = 64) -> dict:
    """The ``unet_config`` of a small Chroma; heads have their 128 channels."""
    return config_of(
        {
            "img_in.weight": (width, 64),
            "txt_in.weight": (width, context),
            "final_layer.linear.weight": (64, width),
            "distilled_guidance_layer.in_proj.weight": (inner, 64),
            "distilled_guidance_layer.out_proj.weight": (width, inner),
            **{f"distilled_guidance_layer.layers.{number}.": () for number in range(2)},
            **{f"double_blocks.{number}.": () for number in range(depth)},
            **{f"single_blocks.{number}.": () for number in range(single)},
        }
    )


def chroma_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small Chroma in the authors' names."""
    return random_tensors(chroma_config(**sizes), seed, file_name=_scales)


def _scales(name: str) -> str:
    is_norm = ".norms." in name or name.endswith("_norm.weight")
    return f"{name.removesuffix('.weight')}.scale" if is_norm else name


def flux_relative_config(kind: str, *, width: int = 256, context: int = 48) -> dict:
    """The ``unet_config`` of a small Ovis-Image ("ovis"), or of LongCat-Image ("longcat"), whose text has its 3584 values."""
    words = context if kind == "ovis" else 3584
    own = {"double_blocks.0.img_mlp.gate_proj.weight": (), "txt_norm.scale": (words,)} if kind == "ovis" else {}
    return config_of(
        {
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "img_in.weight": (width, 64),
            "txt_in.weight": (width, words),
            **own,
            **{f"{kind}_blocks.{number}.": () for kind in ("double", "single") for number in range(2)},
        }
    )


def hidream_config(*, width: int = 128, double: int = 2, single: int = 2, text: int = 32, llama: int = 32, pooled: int = 48) -> dict:
    """The ``unet_config`` of a small HiDream; heads have their 128 channels."""
    return config_of(
        {
            "double_stream_blocks.0.block.adaLN_modulation.1.weight": (12 * width, width),
            "x_embedder.proj.weight": (width, 64),
            "p_embedder.pooled_embedder.linear_1.weight": (width, pooled),
            **{f"caption_projection.{number}.linear.weight": (width, llama) for number in range(double + single)},
            f"caption_projection.{double + single}.linear.weight": (width, text),
            **{f"double_stream_blocks.0.block.ff_i.experts.{number}.": () for number in range(4)},
            **{f"double_stream_blocks.{number}.": () for number in range(double)},
            **{f"single_stream_blocks.{number}.": () for number in range(single)},
        }
    )


def hidream_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small HiDream in the published names."""
    return random_tensors(hidream_config(**sizes), seed)


def llama_tokenizer_json() -> str:
    """A tokenizer of single bytes and one word that begins texts with Llama 3's mark."""
    from qwen_tokenizer import byte_names
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {sign: number for number, sign in enumerate(byte_names().values())}
    vocabulary |= {"us": 300, "<|begin_of_text|>": 128000, "<|eot_id|>": 128009}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("u", "s")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True) for mark in ("<|begin_of_text|>", "<|eot_id|>")])
    made.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 128000)])
    return made.to_str()


def sd35_control_tensors(kind: int, *, double: bool, depth: int = 2, layers: int = 1, pooled: int = 2048) -> dict[str, torch.Tensor]:
    """A small ControlNet for Stable Diffusion 3.5 of *depth* blocks in the published names, for a *kind* of picture."""
    from comfy.cldm.dit_embedder import ControlNetEmbedder
    from comfy.dit.sd3 import OUTSIDE_NAMES

    network = ControlNetEmbedder(
        num_layers=layers,
        main_model_double=depth,
        num_attention_heads=depth,
        attention_head_dim=64,
        patch_size=2,
        in_chans=16,
        double_y_emb=double,
        adm_in_channels=pooled,
    )
    generator = torch.Generator().manual_seed(kind)
    files = {own: name for name, own in OUTSIDE_NAMES.items()}
    tensors = {"control_type": torch.tensor(float(kind))}
    for name, value in network.named_parameters():
        bare, _, leaf = name.rpartition(".")
        tensors[f"{files.get(bare, bare)}.{leaf}"] = random_weight(name, tuple(value.shape), generator)
    return tensors


def vae_tensors(config: KlVaeConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """An autoencoder in the published names."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: random_weight(name, shape, generator) if "running_var" not in name else torch.rand(shape, generator=generator) + 0.5
        for name, shape in vae_layout(config).items()
    }


def llama_tensors(seed: int = 0, *, vocabulary: int = 400, width: int = 32, layers: int = 3, inner: int = 48) -> dict[str, torch.Tensor]:
    """A small Llama, or Mistral (40 layers), in the published names, of two heads with one key."""
    from comfy.ops import disable_weight_init
    from comfy.text.llama import LlamaTextConfig, LlamaTextModel

    config = LlamaTextConfig(vocabulary, width, inner, layers, num_heads=2, num_key_heads=1)
    generator = torch.Generator().manual_seed(seed)
    parameters = LlamaTextModel(config, disable_weight_init).named_parameters()
    return {name: random_weight(name, tuple(value.shape), generator) for name, value in parameters}


def tekken_json(specials: tuple[str, ...] = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")) -> str:
    """A tokenizer in Mistral's format that knows single bytes, and a word."""
    import base64
    import json

    words = [bytes([number]) for number in range(256)] + [b"re", b"red"]
    filled = [*specials, *(f"<SPECIAL_{number}>" for number in range(len(specials), 20))]
    return json.dumps(
        {
            "config": {
                "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                "default_vocab_size": len(words) + 20,
                "default_num_special_tokens": 20,
                "version": "v7",
            },
            "vocab": [{"rank": rank, "token_bytes": base64.b64encode(word).decode(), "token_str": None} for rank, word in enumerate(words)],
            "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(filled)],
        }
    )


def as_bytes(text: str) -> torch.Tensor:
    """*text* as files of text encoders carry it."""
    return torch.frombuffer(bytearray(text, "utf-8"), dtype=torch.uint8).clone()


def krea2_config(*, width: int = 256, depth: int = 2, context: int = 32, states: int = 12, text_head: int = 16) -> dict:
    """The ``unet_config`` of a small Krea 2, whose heads have 64 channels, and those of its text *text_head*."""
    return config_of(
        {
            "first.weight": (width, 64),
            "txtfusion.projector.weight": (1, states),
            "txtfusion.layerwise_blocks.0.prenorm.scale": (context,),
            "txtfusion.layerwise_blocks.0.attn.wk.weight": (context, context),
            "txtfusion.layerwise_blocks.0.attn.qknorm.qnorm.scale": (text_head,),
            "blocks.0.attn.qknorm.qnorm.scale": (64,),
            "blocks.0.attn.wq.weight": (width, width),
            "blocks.0.attn.wk.weight": (128, width),
            **{f"blocks.{number}.": () for number in range(depth)},
        }
    )


def krea2_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Krea 2 in the authors' names; scales of norms are kept as what is more than one."""
    tensors = random_tensors(krea2_config(**sizes), seed, dtype)
    return {name: value - 1 if name.endswith(".scale") else value for name, value in tensors.items()}


def qwen21_config(*, width: int = 64, depth: int = 2, context: int = 48, fused: bool = True) -> dict:
    """The ``unet_config`` of a small Qwen-Image 2.1, whose heads have 32 channels."""
    inner = {"gate_up.weight": (6 * width, width)} if fused else {"proj.weight": (3 * width, width)}
    return config_of(
        {
            "txt_in.text_norm.weight": (context,),
            "txt_in.in_layer.weight": (width, context),
            "img_in.weight": (width, 64),
            "proj_out.weight": (64, width),
            "modulation.1.weight": (4 * width, width),
            "transformer_blocks.0.attn.norm_q.weight": (32,),
            **{f"transformer_blocks.0.img_mlp.{name}": shape for name, shape in inner.items()},
            **{f"transformer_blocks.{number}.": () for number in range(depth)},
        }
    )


def qwen21_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Qwen-Image 2.1 in the published names."""
    tensors = random_tensors(qwen21_config(**sizes), seed, dtype)
    return tensors | {"txt_in.text_norm.weight": tensors["txt_in.text_norm.weight"] - 1}


def qwen21_vae_layout(width=8, decoder_width=12):
    """The layout of an autoencoder of Qwen-Image 2.1's, with *width* and *decoder_width* channels at full resolution."""
    layout = Layout((1, 3, 3))
    steps, between = (1, 2, 4, 8, 8), (1, 2, 3)  # channels of each level; levels that halve the number of a video's frames
    inner = width
    layout.conv("encoder.conv1", 4, width, 1, 3, 3)
    for level, step in enumerate(steps):
        name = f"encoder.downsamples.{level}.downsamples"
        for part in range(2):
            layout.block(f"{name}.{part}", inner, step * width)
            inner = step * width
        if level < 4:
            layout.conv(f"{name}.2.resample.1", inner, inner, 3, 3)
        if level in between:
            layout.conv(f"{name}.2.time_conv", inner, inner, 1, 1, 1)
    layout.middle("encoder", inner)
    layout.head("encoder", inner, 128)
    layout.conv("conv1", 128, 128, 1, 1, 1)
    layout.conv("conv2", 64, 64, 1, 1, 1)
    inner = 8 * decoder_width
    layout.conv("decoder.conv1", 64, inner, 1, 3, 3)
    layout.middle("decoder", inner)
    for level, step in enumerate((8, 8, 4, 2, 1)):
        name = f"decoder.upsamples.{level}.upsamples"
        for part in range(3):
            layout.block(f"{name}.{part}", inner, step * decoder_width)
            inner = step * decoder_width
        if level < 4:
            layout.conv(f"{name}.3.resample.1", inner, inner, 3, 3)
        if level < 3:
            layout.conv(f"{name}.3.time_conv", inner, 2 * inner, 1, 1, 1)
    layout.head("decoder", inner, 4)
    return layout.shapes


def mage_config(*, width: int = 64, depth: int = 2, context: int = 48) -> dict:
    """The ``unet_config`` of a small Mage-Flow, whose heads have 32 channels."""
    return config_of(
        {
            "txt_norm.weight": (context,),
            "img_in.weight": (width, 128),
            "proj_out.weight": (128, width),
            "transformer_blocks.0.attn.norm_added_q.weight": (32,),
            **{f"transformer_blocks.{number}.": () for number in range(depth)},
        }
    )


def mage_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small Mage-Flow in the published names."""
    return random_tensors(mage_config(**sizes), seed)


def mage_vae_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """A small autoencoder of Mage-Flow in the published names, with a rest of the one that it was taught by."""
    generator = torch.Generator().manual_seed(seed)
    sizes = MageSizes(latent=128, head=32, width=32, pixel=8, head_blocks=1, encoder_blocks=2, decoder_blocks=2, pixel_blocks=1)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in MageVAE(sizes).named_parameters()}
    names = {name: name.replace("dconv_encoder.", "student.dconv_encoder.").replace("decoder_model.", "pipeline.") for name in shapes}
    tensors = {names[name]: random_weight(name, shape, generator) for name, shape in shapes.items()}
    return tensors | {"pipeline.y_embedder.encoder.conv_in.weight": torch.zeros(2, 2, 3, 3)}


def omnigen_config(*, width: int = 96, depth: int = 2, context: int = 48, double: int | None = None) -> dict:
    """The ``unet_config`` of a small OmniGen2, or Boogu with so many *double* layers; two heads of 48 values with one key."""
    single = "layers" if double is None else "single_stream_layers"
    return config_of(
        {
            "time_caption_embed.caption_embedder.0.weight": (context,),
            "image_index_embedding": (5, width),
            "x_embedder.weight": (width, 64),
            "noise_refiner.0.attn.norm_q.weight": (48,),
            "noise_refiner.0.attn.to_q.weight": (width, width),
            "noise_refiner.0.attn.to_k.weight": (width // 2, width),
            **({"double_stream_layers.0.img_instruct_attn.norm_q.weight": (48,)} if double else {}),
            **{f"double_stream_layers.{number}.": () for number in range(double or 0)},
            **{f"{single}.{number}.": () for number in range(depth)},
        }
    )


def omnigen_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small OmniGen2 or Boogu in the published names."""
    return random_tensors(omnigen_config(**sizes), seed)
