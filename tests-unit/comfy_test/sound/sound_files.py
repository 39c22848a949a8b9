"""Small models of sound with random weights in the published names."""

import torch
from safetensors.torch import save_file
from transformer_files import config_of, random_tensors, random_weight

STRIDES = {44100: (2, 4, 4, 8, 8), 48000: (2, 4, 4, 6, 10)}
SNAKES = ("alpha", "beta")


def oobleck_layout(rate_hz=48000, width=8, latent=64, channels=2, old_names=True):
    """{published name: shape} of an autoencoder of that rate; *old_names*: those that torch's older weight norm gives."""
    shapes, strides = {}, STRIDES[rate_hz]
    widths = [width, *(width * 2**level for level in range(len(strides)))]
    of_direction, of_length = ("weight_v", "weight_g") if old_names else (f"parametrizations.weight.original{one}" for one in (1, 0))

    def conv(name, rows, inner, kernel, bias=None):
        shapes[f"{name}.{of_direction}"], shapes[f"{name}.{of_length}"] = (rows, inner, kernel), (rows, 1, 1)
        if bias:
            shapes[f"{name}.bias"] = (bias,)

    def snake(name, inner):
        shapes.update({f"{name}.{leaf}": (inner,) for leaf in SNAKES})

    def unit(name, inner):
        for number, kernel in ((0, 7), (2, 1)):
            snake(f"{name}.layers.{number}", inner)
            conv(f"{name}.layers.{number + 1}", inner, inner, kernel, inner)

    conv("encoder.layers.0", width, channels, 7, width)
    conv("decoder.layers.0", widths[-1], latent, 7, widths[-1])
    for level, stride in enumerate(strides, 1):
        inner, outer = widths[level - 1], widths[level]
        for number in range(3):
            unit(f"encoder.layers.{level}.layers.{number}", inner)
        snake(f"encoder.layers.{level}.layers.3", inner)
        conv(f"encoder.layers.{level}.layers.4", outer, inner, 2 * stride, outer)
        up = f"decoder.layers.{len(strides) + 1 - level}"
        snake(f"{up}.layers.0", outer)
        conv(f"{up}.layers.1", outer, inner, 2 * stride, inner)
        for number in range(2, 5):
            unit(f"{up}.layers.{number}", inner)
    last = len(strides) + 1
    snake(f"encoder.layers.{last}", widths[-1])
    conv(f"encoder.layers.{last + 1}", 2 * latent, widths[-1], 3, 2 * latent)
    snake(f"decoder.layers.{last}", width)
    conv(f"decoder.layers.{last + 1}", channels, width, 7)
    return shapes


def oobleck_tensors(seed=0, **sizes):
    """Values for such an autoencoder, float32."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: random_weight(name, shape, generator) for name, shape in oobleck_layout(**sizes).items()}
    return {name: 0.1 * value.abs() + 0.3 if name.endswith(("weight_g", "original0")) else value for name, value in tensors.items()}


def oobleck_file(path, seed=0, prefix="", **sizes):
    """*path*, after such an autoencoder was written there."""
    save_file({prefix + name: value for name, value in oobleck_tensors(seed, **sizes).items()}, str(path))
    return str(path)


def ace15_config(*, hidden=64, encoder=48, text=40, depth=3, inner=96, heads=16):
    """The ``unet_config`` of a small ACE-Step 1.5, whose heads have 128 channels, eight of them of keys."""
    attention = {"self_attn.q_proj.weight": (heads * 128, hidden), "self_attn.k_proj.weight": (1024, hidden)}
    lyrics = "encoder.lyric_encoder.layers.0."
    shapes = {
        f"{lyrics}input_layernorm.weight": (encoder,),
        f"{lyrics}self_attn.q_proj.weight": (1024, encoder),
        f"{lyrics}mlp.gate_proj.weight": (inner, encoder),
        "decoder.proj_in.1.weight": (hidden, 192, 2),
        "decoder.proj_out.1.weight": (hidden, 64, 2),
        "decoder.layers.0.mlp.gate_proj.weight": (inner, hidden),
        "encoder.text_projector.weight": (encoder, text),
        "encoder.timbre_encoder.embed_tokens.weight": (encoder, 64),
        "encoder.timbre_encoder.layers.0.": (),
        "tokenizer.attention_pooler.layers.0.": (),
        "tokenizer.quantizer.project_in.weight": (6, encoder),
        "detokenizer.layers.0.": (),
        "detokenizer.special_tokens": (1, 5, encoder),
        **{f"decoder.layers.0.{name}": shape for name, shape in attention.items()},
        **{f"decoder.layers.{number}.": () for number in range(depth)},
    }
    return config_of(shapes)


def ace15_tensors(seed=0, dtype=torch.float32, **sizes):
    """A small ACE-Step 1.5 in the published names."""
    return random_tensors(ace15_config(**sizes), seed, dtype)


def ace15_file(path, seed=0, **sizes):
    """*path*, after such a network was written there."""
    save_file(ace15_tensors(seed, **sizes), str(path))
    return str(path)


def stable_audio_config(*, width=128, text=32, inner=None, depth=2, memory=0, normed=False):
    """The ``unet_config`` of a small Stable Audio with heads of 64 channels; *inner*: the width of its context, if not the text's."""
    shapes = {
        "transformer.rotary_pos_emb.inv_freq": (16,),
        "timestep_features.weight": (128, 1),
        "to_timestep_embed.0.weight": (width, 256),
        "postprocess_conv.weight": (64, 64, 1),
        "to_cond_embed.0.weight": (inner or text, text),
        "to_global_embed.0.weight": (width, 2 * text),
        "transformer.project_in.weight": (width, 64),
        **({"transformer.memory_tokens": (memory, width)} if memory else {}),
        **({"transformer.layers.0.self_attn.q_norm.weight": (64,)} if normed else {}),
        **{f"transformer.layers.{number}.": () for number in range(depth)},
    }
    return config_of(shapes)


def stable_audio_tensors(seed=0, **sizes):
    """A checkpoint of a small Stable Audio in the published names, without autoencoder and text encoder."""
    config = stable_audio_config(**sizes)
    tensors = {f"model.model.{name}": value for name, value in random_tensors(config, seed).items()}
    frequencies = "model.model.transformer.rotary_pos_emb.inv_freq"
    tensors[frequencies] = 10000 ** -(torch.arange(16) / 16)
    generator = torch.Generator().manual_seed(seed + 1)
    for time in ("start", "total"):
        own, width = f"conditioner.conditioners.seconds_{time}.embedder.embedding.", config["cond_token_dim"]
        for name, shape in (("0.weights", (128,)), ("1.weight", (width, 257)), ("1.bias", (width,))):
            tensors[own + name] = random_weight(name, shape, generator)
    return tensors


def stable_audio_file(path, seed=0, rate_hz=44100, **sizes):
    """*path*, after a checkpoint was written there: the network, and an autoencoder."""
    autoencoder = {f"pretransform.model.{name}": value for name, value in oobleck_tensors(seed, rate_hz=rate_hz).items()}
    save_file(stable_audio_tensors(seed, **sizes) | autoencoder, str(path))
    return str(path)


DCAE_WIDTHS, VOCODER_WIDTHS = (16, 32, 64, 64), (8, 12, 16, 24)
VOCODER_KERNELS, BLOCK_KERNELS = (8, 8, 4, 4, 4, 4, 4), (3, 5)


def music_vae_layout(channels=128, widths=DCAE_WIDTHS, blocks=(1, 1, 1, 1), stages=(1, 1, 2, 1)):
    """{published name: shape} of ACE-Step 1's autoencoder; heads have 32 values, *channels* are the vocoder's."""
    shapes = {}

    def conv(name, rows, inner, *kernel, bias=True):
        shapes[f"{name}.weight"] = (rows, inner, *kernel)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    def norm(name, width):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def normed(name, rows, inner, kernel, bias):
        shapes[f"{name}.parametrizations.weight.original1"] = (rows, inner, kernel)
        shapes[f"{name}.parametrizations.weight.original0"], shapes[f"{name}.bias"] = (rows, 1, 1), (bias,)

    def block(name, width, attentive):
        if not attentive:
            conv(f"{name}.conv1", width, width, 3, 3)
            conv(f"{name}.conv2", width, width, 3, 3, bias=False)
            norm(f"{name}.norm", width)
            return
        for part in ("to_q", "to_k", "to_v"):
            conv(f"{name}.attn.{part}", width, width, bias=False)
        conv(f"{name}.attn.to_qkv_multiscale.0.proj_in", 3 * width, 1, 5, 5, bias=False)
        conv(f"{name}.attn.to_qkv_multiscale.0.proj_out", 3 * width, 32, 1, 1, bias=False)
        conv(f"{name}.attn.to_out", width, 2 * width, bias=False)
        norm(f"{name}.attn.norm_out", width)
        conv(f"{name}.conv_out.conv_inverted", 8 * width, width, 1, 1)
        conv(f"{name}.conv_out.conv_depth", 8 * width, 1, 3, 3)
        conv(f"{name}.conv_out.conv_point", width, 4 * width, 1, 1, bias=False)
        norm(f"{name}.conv_out.norm", width)

    conv("dcae.encoder.conv_in", widths[0], 2, 3, 3)
    conv("dcae.encoder.conv_out", 8, widths[-1], 3, 3)
    conv("dcae.decoder.conv_in", widths[-1], 8, 3, 3)
    conv("dcae.decoder.conv_out", 2, widths[0], 3, 3)
    norm("dcae.decoder.norm_out", widths[0])
    last = len(widths) - 1
    for level, (width, count) in enumerate(zip(widths, blocks)):
        down, up, first = f"dcae.encoder.down_blocks.{level}", f"dcae.decoder.up_blocks.{level}", int(level < last)
        for number in range(count):
            block(f"{down}.{number}", width, level == last)
            block(f"{up}.{number + first}", width, level == last)
        if first:
            conv(f"{down}.{count}.conv", widths[level + 1], width, 3, 3)
            conv(f"{up}.0.conv", width, widths[level + 1], 3, 3)
    conv("vocoder.backbone.channel_layers.0.0", VOCODER_WIDTHS[0], 128, 7)
    norm("vocoder.backbone.channel_layers.0.1", VOCODER_WIDTHS[0])
    norm("vocoder.backbone.norm", VOCODER_WIDTHS[-1])
    for stage, (width, count) in enumerate(zip(VOCODER_WIDTHS, stages)):
        if stage:
            norm(f"vocoder.backbone.channel_layers.{stage}.0", VOCODER_WIDTHS[stage - 1])
            conv(f"vocoder.backbone.channel_layers.{stage}.1", width, VOCODER_WIDTHS[stage - 1], 1)
        for number in range(count):
            own = f"vocoder.backbone.stages.{stage}.{number}"
            conv(f"{own}.dwconv", width, 1, 7)
            norm(f"{own}.norm", width)
            conv(f"{own}.pwconv1", 4 * width, width)
            conv(f"{own}.pwconv2", width, 4 * width)
            shapes[f"{own}.gamma"] = (width,)
    head, width = "vocoder.head", channels
    normed(f"{head}.conv_pre", channels, VOCODER_WIDTHS[-1], 13, channels)
    for step, kernel in enumerate(VOCODER_KERNELS):
        normed(f"{head}.ups.{step}", width, width // 2, kernel, width // 2)
        width //= 2
        for place, own in enumerate(BLOCK_KERNELS):
            for number in range(6):
                name = f"{head}.resblocks.{step * len(BLOCK_KERNELS) + place}.convs{number // 3 + 1}.{number % 3}"
                normed(name, width, width, own, width)
    normed(f"{head}.conv_post", 1, width, 13, 1)
    return shapes


def music_vae_tensors(seed=0, **sizes):
    """Values for such an autoencoder, float32."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: random_weight(name, shape, generator) for name, shape in music_vae_layout(**sizes).items()}
    return {name: 0.1 * value.abs() + 0.9 if name.endswith("original0") else value for name, value in tensors.items()}


def ace_config(*, width=128, text=32, lyrics=48, depth=2, vocabulary=400, inner=64):
    """The ``unet_config`` of a small ACE-Step 1 of one head."""
    encoder = "lyric_encoder.encoders.{}.".format
    shapes = {
        "genre_embedder.weight": (width, text),
        "speaker_embedder.weight": (width, 512),
        "lyric_embs.weight": (vocabulary, lyrics),
        f"{encoder(0)}self_attn.pos_bias_u": (4, lyrics // 4),
        f"{encoder(0)}feed_forward.w_1.weight": (96, lyrics),
        f"{encoder(1)}": (),
        "proj_in.early_conv_layers.0.weight": (inner, 8, 16, 1),
        "final_layer.linear.weight": (128, width),
        "transformer_blocks.0.ff.point_conv.conv.weight": (width, width * 5 // 2, 1),
        **{f"transformer_blocks.{number}.": () for number in range(depth)},
    }
    return config_of(shapes)


def ace_tensors(seed=0, **sizes):
    """A small ACE-Step 1 in the published names."""
    return random_tensors(ace_config(**sizes), seed)


def ace_file(path, seed=0, **sizes):
    """*path*, after such a network was written there."""
    save_file(ace_tensors(seed, **sizes), str(path))
    return str(path)


def lyrics_tokenizer_json():
    """The JSON of a tokenizer of the kind that ACE-Step 1 has for lyrics: single signs, and marks of languages."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    marks = ["[STOP]", "[UNK]", "[SPACE]", *(f"[{language}]" for language in ("en", "fr", "ja", "zh-cn", "de"))]
    signs = [chr(number) for number in range(33, 127)] + list("éüöß你好")
    vocabulary = {token: number for number, token in enumerate([*marks, *signs, "la", "th"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("l", "a"), ("t", "h")], unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return made.to_str()
