"""Small text models of Gemma 4 in the published names, with random weights, and a tokenizer made for them."""

import functools
import json

import torch

LAYERS = {"e2b": 35, "e4b": 42, "12b": 48, "31b": 60}
SHARED = {"e2b": 20, "e4b": 18}
GLOBAL_EVERY = {"e2b": 5}
WIDTH, INNER, HEADS, HEAD, FAR_HEAD, PER_LAYER = 32, 48, 4, 16, 32, 8
EYES_WIDTH, EYES_INNER, EYES_HEADS, EYES_HEAD, PLACES, PATCH = 24, 32, 2, 12, 64, 16
EARS_WIDTH, EARS_HEADS, EARS_OUT = 32, 2, 24
GLANCE, GLANCE_PLACES, SAMPLES = 40, 32, 640
START, PICTURE, SOUND, FRAME = 2, 258880, 258881, 258884
SPECIAL = ("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|image>", "<image|>", "<|audio>", "<audio|>")


def key_heads(size, is_far):
    """How many heads of keys a layer has."""
    return {"e2b": 1, "12b": 1 if is_far else 2}.get(size, 2)


def gemma4_tensors(size, vocabulary=300, senses=True, seed=0):
    """The tensors (float32) of a small Gemma 4 of *size*, "e2b", "e4b", "12b" or "31b", with what looks and listens if *senses*."""
    shapes = {"model.embed_tokens.weight": (vocabulary, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS[size]):
        shapes |= _layer(size, layer)
    if size in SHARED:
        shapes["model.embed_tokens_per_layer.weight"] = (vocabulary, LAYERS[size] * PER_LAYER)
        shapes["model.per_layer_model_projection.weight"] = (LAYERS[size] * PER_LAYER, WIDTH)
        shapes["model.per_layer_projection_norm.weight"] = (PER_LAYER,)
    if senses:
        shapes |= _glance() if size == "12b" else _eyes()
        shapes |= _ears() if size in SHARED else {}
    numbers = torch.Generator().manual_seed(seed)
    return {name: _values(name, shape, numbers) for name, shape in shapes.items()}


def _values(name, shape, numbers):
    if name.endswith(("_max", "_min")):
        return torch.tensor(1.5 if name.endswith("max") else -1.5)
    values = torch.randn(shape, generator=numbers)
    if name.endswith(("layer_scalar", "norm.weight")) or "layer_norm" in name or ("layernorm" in name) or "_ln" in name or "norm_" in name:
        scale = 0.3 if "post_" in name else 1  # what layers add is small, so that errors do not grow from one to the next
        return scale * (1 + 0.1 * values) if name.endswith(("weight", "layer_scalar")) else 0.1 * values
    return values * (0.3 if "embed_tokens" in name or "pos" in name else shape[-1] ** -0.5)


def _layer(size, layer):
    own = f"model.layers.{layer}."
    is_far = (layer + 1) % GLOBAL_EVERY.get(size, 6) == 0
    head, keys = FAR_HEAD if is_far else HEAD, key_heads(size, is_far)
    inner = 2 * INNER if size == "e2b" and layer >= LAYERS[size] - SHARED[size] else INNER
    shapes = {f"{own}layer_scalar": (1,)}
    for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
        shapes[f"{own}{name}_layernorm.weight"] = (WIDTH,)
    for name, heads in (("q", HEADS), ("k", keys), ("v", keys)):
        shapes[f"{own}self_attn.{name}_proj.weight"] = (heads * head, WIDTH)
    if size == "12b" and is_far:
        del shapes[f"{own}self_attn.v_proj.weight"]
    shapes[f"{own}self_attn.o_proj.weight"] = (WIDTH, HEADS * head)
    shapes |= {f"{own}self_attn.{name}_norm.weight": (head,) for name in "qk"}
    shapes |= {f"{own}mlp.{name}_proj.weight": (inner, WIDTH) for name in ("gate", "up")}
    shapes[f"{own}mlp.down_proj.weight"] = (WIDTH, inner)
    if size in SHARED:
        shapes[f"{own}per_layer_input_gate.weight"] = (PER_LAYER, WIDTH)
        shapes[f"{own}per_layer_projection.weight"] = (WIDTH, PER_LAYER)
        shapes[f"{own}post_per_layer_input_norm.weight"] = (WIDTH,)
    return shapes


def _clipped(name, outputs, inputs):
    bounds = {f"{name}.{end}_{bound}": () for end in ("input", "output") for bound in ("min", "max")}
    return {f"{name}.linear.weight": (outputs, inputs), **bounds}


def _eyes(layers=2):
    width, inner = EYES_WIDTH, EYES_INNER
    shapes = {
        "vision_model.patch_embedder.input_proj.weight": (width, 3 * PATCH**2),
        "vision_model.patch_embedder.position_embedding_table": (2, PLACES, width),
        "multi_modal_projector.embedding_projection.weight": (WIDTH, width),
    }
    for layer in range(layers):
        own = f"vision_model.encoder.layers.{layer}."
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            shapes[f"{own}{name}_layernorm.weight"] = (width,)
        shapes |= {f"{own}self_attn.{name}_norm.weight": (EYES_HEAD,) for name in "qk"}
        for name in ("q_proj", "k_proj", "v_proj"):
            shapes |= _clipped(f"{own}self_attn.{name}", EYES_HEADS * EYES_HEAD, width)
        shapes |= _clipped(f"{own}self_attn.o_proj", width, EYES_HEADS * EYES_HEAD)
        for name, outputs, inputs in (("gate_proj", inner, width), ("up_proj", inner, width), ("down_proj", width, inner)):
            shapes |= _clipped(f"{own}mlp.{name}", outputs, inputs)
    return shapes


def _ears(layers=2):
    width = EARS_WIDTH
    first = "audio_model.subsample_conv_projection."
    shapes = {
        f"{first}layer0.conv.weight": (128, 1, 3, 3),
        f"{first}layer0.norm.weight": (128,),
        f"{first}layer1.conv.weight": (32, 128, 3, 3),
        f"{first}layer1.norm.weight": (32,),
        f"{first}input_proj_linear.weight": (width, 1024),
        "audio_model.output_proj.weight": (EARS_OUT, width),
        "audio_model.output_proj.bias": (EARS_OUT,),
        "audio_projector.embedding_projection.weight": (WIDTH, EARS_OUT),
    }
    for layer in range(layers):
        own = f"audio_model.layers.{layer}."
        for name in ("norm_pre_attn", "norm_post_attn", "norm_out", "lconv1d.pre_layer_norm", "lconv1d.conv_norm"):
            shapes[f"{own}{name}.weight"] = (width,)
        for name in ("feed_forward1", "feed_forward2"):
            shapes |= {f"{own}{name}.{part}_layer_norm.weight": (width,) for part in ("pre", "post")}
            shapes |= _clipped(f"{own}{name}.ffw_layer_1", 4 * width, width) | _clipped(f"{own}{name}.ffw_layer_2", width, 4 * width)
        for name in ("q_proj", "k_proj", "v_proj", "post"):
            shapes |= _clipped(f"{own}self_attn.{name}", width, width)
        shapes |= {f"{own}self_attn.per_dim_scale": (width // EARS_HEADS,), f"{own}self_attn.relative_k_proj.weight": (width, width)}
        shapes |= _clipped(f"{own}lconv1d.linear_start", 2 * width, width) | _clipped(f"{own}lconv1d.linear_end", width, width)
        shapes[f"{own}lconv1d.depthwise_conv1d.weight"] = (width, 1, 5)
    return shapes


def _glance():
    shapes = {
        "vision_model.patch_dense.weight": (GLANCE, 48 * 48 * 3),
        "vision_model.patch_dense.bias": (GLANCE,),
        "vision_model.pos_embedding": (GLANCE_PLACES, 2, GLANCE),
        "multi_modal_projector.embedding_projection.weight": (WIDTH, GLANCE),
        "audio_projector.embedding_projection.weight": (WIDTH, SAMPLES),
    }
    for name, width in (("patch_ln1", 48 * 48 * 3), ("patch_ln2", GLANCE), ("pos_norm", GLANCE)):
        shapes |= {f"vision_model.{name}.{leaf}": (width,) for leaf in ("weight", "bias")}
    return shapes


@functools.cache
def gemma4_tokenizer_json():
    """The JSON of a tokenizer of single bytes with Gemma 4's numbers for beginning, end, padding and what stands for media."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *letters, *SPECIAL]
    vocabulary = {word: number for number, word in enumerate(words)}
    vocabulary |= {"<|image|>": PICTURE, "<|audio|>": SOUND, "<|video|>": FRAME}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", *SPECIAL, "<|image|>", "<|audio|>", "<|video|>"])
    return json.dumps(json.loads(made.to_str()))


def with_tokenizer(tensors):
    """*tensors* and the tokenizer, as files carry it."""
    return {**tensors, "tokenizer_json": torch.frombuffer(bytearray(gemma4_tokenizer_json().encode()), dtype=torch.uint8)}
