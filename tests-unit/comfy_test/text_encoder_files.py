"""Small text models in the published names, with random weights, and tokenizers made for them."""

import functools

import torch

CLIP_VOCABULARY, T5_VOCABULARY, CLIP_TOKENS = 49408, 32128, 77
CLIP_WIDTH, T5_WIDTH, T5_FEED_FORWARD, T5_HEADS, T5_HEAD_WIDTH = 64, 32, 64, 4, 8
GEMMA_WIDTH, GEMMA_HEADS, GEMMA_HEAD_WIDTH = 64, 2, 256
EYES_WIDTH, EYES_PATCHES, EYES_PATCH = 32, 32, 14  # patches along a side
SIZES = {"clip_l": 3, "clip_g": 32, "t5xxl": 24, "umt5xxl": 3, "t5xxl_old": 24, "t5base": 3, "gemma2_2b": 3}  # layers
GEMMA3_LAYERS = {"gemma3_12b": 48, "gemma3_4b": 7}
SENTENCES = (
    "a red apple on a wooden table",
    "the quick brown fox jumps over the lazy dog",
    "two cats and a bird in the rain at night",
    "an oil painting of a castle, very detailed, in the style of old masters",
    "ein roter Apfel auf dem Tisch",
    "numbers 0 1 2 3 4 5 6 7 8 9 (round) [square] {curly} : ; , . ! ?",
)


def text_model(kind, seed=0, vocabulary=None):
    """The tensors (float32) of a small text model of *kind*, one of :data:`SIZES` or :data:`GEMMA3_LAYERS` (+ "+eyes")."""
    if kind.startswith("gemma3"):
        name, _, eyes = kind.partition("+")
        shapes = _gemma(GEMMA3_LAYERS[name], vocabulary or T5_VOCABULARY, third=True) | (_gemma_eyes() if eyes else {})
    elif kind.startswith("clip"):
        shapes = _clip(SIZES[kind], kind == "clip_g")
    elif kind == "gemma2_2b":
        shapes = _gemma(SIZES[kind], vocabulary or T5_VOCABULARY)
    else:
        shapes = _t5(kind, SIZES[kind], vocabulary or T5_VOCABULARY)
    numbers = torch.Generator().manual_seed(seed)
    return {name: _values(name, shape, numbers) for name, shape in shapes.items()}


def _values(name, shape, numbers):
    values = torch.randn(shape, generator=numbers) * (0.3 if "embed" in name or name == "shared.weight" else shape[-1] ** -0.5)
    return 1 + 0.1 * values if "norm" in name and name.endswith("weight") else values


def _clip(layers, projected):
    width = CLIP_WIDTH
    shapes = {
        "text_model.embeddings.token_embedding.weight": (CLIP_VOCABULARY, width),
        "text_model.embeddings.position_embedding.weight": (CLIP_TOKENS, width),
        "text_model.final_layer_norm.weight": (width,),
        "text_model.final_layer_norm.bias": (width,),
    }
    for layer in range(layers):
        own = f"text_model.encoder.layers.{layer}."
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{own}{name}.weight": (width,), f"{own}{name}.bias": (width,)}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{own}self_attn.{name}.weight": (width, width), f"{own}self_attn.{name}.bias": (width,)}
        shapes |= {f"{own}mlp.fc1.weight": (2 * width, width), f"{own}mlp.fc1.bias": (2 * width,)}
        shapes |= {f"{own}mlp.fc2.weight": (width, 2 * width), f"{own}mlp.fc2.bias": (width,)}
    return shapes | {"text_projection.weight": (width, width)} if projected else shapes


def _t5(kind, layers, vocabulary):
    inner = T5_HEADS * T5_HEAD_WIDTH
    gated = kind in ("t5xxl", "umt5xxl")
    shapes = {"shared.weight": (vocabulary, T5_WIDTH), "encoder.final_layer_norm.weight": (T5_WIDTH,)}
    for layer in range(layers):
        own = f"encoder.block.{layer}.layer."
        attention, dense = f"{own}0.SelfAttention.", f"{own}1.DenseReluDense."
        shapes |= {f"{own}{number}.layer_norm.weight": (T5_WIDTH,) for number in range(2)}
        shapes |= {f"{attention}{name}.weight": (inner, T5_WIDTH) for name in "qkv"} | {f"{attention}o.weight": (T5_WIDTH, inner)}
        shapes |= {f"{dense}{name}.weight": (T5_FEED_FORWARD, T5_WIDTH) for name in (("wi_0", "wi_1") if gated else ("wi",))}
        shapes[f"{dense}wo.weight"] = (T5_WIDTH, T5_FEED_FORWARD)
        if layer == 0 or kind == "umt5xxl":
            shapes[f"{attention}relative_attention_bias.weight"] = (32, T5_HEADS)
    return shapes


def _gemma(layers, vocabulary, third=False):
    width, feed_forward = GEMMA_WIDTH, 2 * GEMMA_WIDTH
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        own = f"model.layers.{layer}."
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            shapes[f"{own}{name}_layernorm.weight"] = (width,)
        for name, heads in (("q", GEMMA_HEADS), ("k", 1), ("v", 1)):
            shapes[f"{own}self_attn.{name}_proj.weight"] = (heads * GEMMA_HEAD_WIDTH, width)
        shapes[f"{own}self_attn.o_proj.weight"] = (width, GEMMA_HEADS * GEMMA_HEAD_WIDTH)
        for name in ("gate", "up"):
            shapes[f"{own}mlp.{name}_proj.weight"] = (feed_forward, width)
        shapes[f"{own}mlp.down_proj.weight"] = (width, feed_forward)
        if third:
            shapes |= {f"{own}self_attn.{name}_norm.weight": (GEMMA_HEAD_WIDTH,) for name in "qk"}
    return shapes


def _gemma_eyes(layers=2):
    width, feed_forward = EYES_WIDTH, 2 * EYES_WIDTH
    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, EYES_PATCH, EYES_PATCH),
        "vision_model.embeddings.patch_embedding.bias": (width,),
        "vision_model.embeddings.position_embedding.weight": (EYES_PATCHES**2, width),
        "multi_modal_projector.mm_input_projection_weight": (width, GEMMA_WIDTH),
        "multi_modal_projector.mm_soft_emb_norm.weight": (width,),
    }
    norms = ["vision_model.post_layernorm"]
    for layer in range(layers):
        own = f"vision_model.encoder.layers.{layer}."
        norms += [f"{own}layer_norm1", f"{own}layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{own}self_attn.{name}.weight": (width, width), f"{own}self_attn.{name}.bias": (width,)}
        shapes |= {f"{own}mlp.fc1.weight": (feed_forward, width), f"{own}mlp.fc1.bias": (feed_forward,)}
        shapes |= {f"{own}mlp.fc2.weight": (width, feed_forward), f"{own}mlp.fc2.bias": (width,)}
    return shapes | {f"{name}.{leaf}": (width,) for name in norms for leaf in ("weight", "bias")}


@functools.cache
def sentence_piece_model(vocabulary=200, begins=False):
    """The bytes of a SentencePiece model with T5's numbers for padding, end and unknown; *begins*: with Gemma's for the beginning."""
    import io

    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5),
        model_writer=made,
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=3 if begins else 2,
        bos_id=2 if begins else -1,
        character_coverage=1.0,
        minloglevel=2,
    )
    return made.getvalue()


@functools.cache
def tokenizer_json(vocabulary=300):
    """The JSON of a Unigram tokenizer with T5's numbers for padding, end and unknown, which ends texts as T5's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=vocabulary, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(SENTENCES * 5, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made.to_str()


def write_tokenizer(folder):
    """Put T5's made tokenizer into *folder*, which need not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
