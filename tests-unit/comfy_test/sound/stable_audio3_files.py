"""A small Stable Audio 3 with random weights in the published names: the network, its times, both kinds of autoencoder."""

import torch
from safetensors.torch import save_file
from transformer_files import config_of, random_tensors, random_weight

LATENT, HEAD = 256, 64
DEPTHS = {"large": 12, "small": 6}
NETWORK, VAE, CONDITIONERS = "model.model.", "pretransform.model.", "conditioner.conditioners."


def stable_audio3_config(*, width=128, text=32, inner=128, depth=2, memory=3, differential=True):
    """The ``unet_config`` of a small network with heads of 64 channels; *inner*: the width of its context."""
    first = "transformer.layers.0."
    shapes = {
        "transformer.rotary_pos_emb.inv_freq": (16,),
        "to_timestep_embed.0.weight": (width, 256),
        "postprocess_conv.weight": (LATENT, LATENT, 1),
        "to_cond_embed.0.weight": (inner, text),
        "to_global_embed.0.weight": (width, text),
        "transformer.project_in.weight": (width, LATENT),
        "transformer.memory_tokens": (memory, width),
        "transformer.global_cond_embedder.0.weight": (width, width),
        f"{first}self_attn.q_norm.gamma": (HEAD,),
        f"{first}self_attn.to_qkv.weight": (width * (5 if differential else 3), width),
        f"{first}to_local_embed.0.weight": (width, LATENT + 1),
        **{f"transformer.layers.{number}.": () for number in range(depth)},
    }
    return config_of(shapes)


def _scales(name, value):
    return 1 + value if name.endswith(("gamma", "alpha")) else value


def stable_audio3_tensors(seed=0, **sizes):
    """A checkpoint of such a network in the published names, without autoencoder and text encoder."""
    config = stable_audio3_config(**sizes)
    tensors = {NETWORK + name: _scales(name, value) for name, value in random_tensors(config, seed).items()}
    tensors[f"{NETWORK}transformer.rotary_pos_emb.inv_freq"] = 10000 ** -(torch.arange(16) / 16)
    generator, width = torch.Generator().manual_seed(seed + 1), config["cond_token_dim"]
    time = f"{CONDITIONERS}seconds_total.embedder.embedding.1."
    for name, shape in ((f"{time}weight", (width, 256)), (f"{time}bias", (width,)), (f"{CONDITIONERS}prompt.padding_embedding", (width,))):
        tensors[name] = random_weight(name, shape, generator)
    return tensors


def stable_audio3_vae_layout(kind="large", channels=32):
    """{published name: shape} of an autoencoder: "large" (of windows) or "small" (of chunks)."""
    width, shapes = 6 * channels, {"bottleneck.noise_scaling_factor": (1, 0, 1), "bottleneck.running_std": (1,)}
    shapes |= {"bottleneck.scaling_factor": (1, LATENT, 1), "bottleneck.bias": (1, LATENT, 1)}

    def tanh(name, inner):
        shapes.update({f"{name}.alpha": (1,), f"{name}.gamma": (inner,), f"{name}.beta": (inner,)})

    def linear(name, rows, inner, bias=True):
        shapes[f"{name}.weight"] = (rows, inner)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    def block(name):
        for norm in ("pre_norm", "ff_norm"):
            tanh(f"{name}.{norm}", width)
        linear(f"{name}.self_attn.to_qkv", 5 * width, width, bias=False)
        linear(f"{name}.self_attn.to_out", width, width, bias=False)
        for norm in ("q_norm", "k_norm"):
            tanh(f"{name}.self_attn.{norm}", HEAD)
        linear(f"{name}.ff.ff.0.proj", 6 * width, width)
        linear(f"{name}.ff.ff.2", width, 3 * width)
        shapes[f"{name}.rope.inv_freq"] = (HEAD // 4,)

    for own, rows, inner, kernel in (("encoder.layers.0", width, 512, 1), ("decoder.layers.3", 512, width, 3 if kind == "small" else 1)):
        weight = f"{own}.mapping.parametrizations.weight.original"
        shapes |= {f"{own}.mapping.bias": (rows,), f"{weight}0": (rows, 1, 1), f"{weight}1": (rows, inner, kernel)}
        shapes[f"{own}.new_tokens"] = (1, 1, width)
        for number in range(DEPTHS[kind]):
            block(f"{own}.transformers.{number}")
    linear("encoder.layers.2", LATENT, width)
    linear("decoder.layers.1", width, LATENT)
    return shapes


def stable_audio3_vae_tensors(kind="large", seed=0, channels=32):
    """Values for such an autoencoder, float32."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, shape in stable_audio3_vae_layout(kind, channels).items():
        value = random_weight(name, shape, generator) if 0 not in shape else torch.empty(shape)
        if name.endswith("inv_freq"):
            value = 10000 ** -(torch.arange(shape[0]) / shape[0])
        elif name.endswith(("original0", "running_std", "scaling_factor")):
            value = 0.1 * value.abs() + 0.9
        tensors[name] = _scales(name, value)
    return tensors


def stable_audio3_file(path, seed=0, kind="large", **sizes):
    """*path*, after a checkpoint was written there: the network, and an autoencoder."""
    autoencoder = {VAE + name: value for name, value in stable_audio3_vae_tensors(kind, seed).items()}
    save_file(stable_audio3_tensors(seed, **sizes) | autoencoder, str(path))
    return str(path)
