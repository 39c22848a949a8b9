"""A small T5Gemma with random weights in the published names."""

import torch
from text_encoder_files import sentence_piece_model

from comfy.text.t5_gemma import HEAD

WIDTH, INNER, HEADS, LAYERS = 32, 48, 2, 4


def t5_gemma_tensors(vocabulary=300, layers=LAYERS):
    """Its encoder, without a tokenizer."""
    numbers = torch.Generator().manual_seed(3)
    shapes = {"embed_tokens.weight": (vocabulary, WIDTH), "norm.weight": (WIDTH,)}
    for layer in range(layers):
        own = f"layers.{layer}."
        shapes |= {f"{own}self_attn.{name}_proj.weight": (HEADS * HEAD, WIDTH) for name in "qkv"}
        shapes |= {f"{own}self_attn.o_proj.weight": (WIDTH, HEADS * HEAD), f"{own}mlp.down_proj.weight": (WIDTH, INNER)}
        shapes |= {f"{own}mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
        for name in ("pre_self_attn", "post_self_attn", "pre_feedforward", "post_feedforward"):
            shapes[f"{own}{name}_layernorm.weight"] = (WIDTH,)
    return {f"model.encoder.{name}": torch.randn(shape, generator=numbers) * 0.2 for name, shape in shapes.items()}


def with_words(tensors):
    """*tensors* and a tokenizer of SentencePiece's."""
    return {**tensors, "spiece_model": torch.frombuffer(bytearray(sentence_piece_model(begins=True)), dtype=torch.uint8)}
