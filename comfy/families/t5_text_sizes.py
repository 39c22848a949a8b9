"""The published sizes of T5 encoders, for models that are made without a file."""

from comfy.families.t5_text_config import T5TextConfig

T5_XXL = T5TextConfig(
    vocabulary=32128,
    hidden_size=4096,
    intermediate_size=10240,
    num_layers=24,
    num_heads=64,
    head_width=64,
    buckets=32,
    gated=True,
    bias_per_layer=False,
)
UMT5_XXL = T5TextConfig(
    vocabulary=256384,
    hidden_size=4096,
    intermediate_size=10240,
    num_layers=24,
    num_heads=64,
    head_width=64,
    buckets=32,
    gated=True,
    bias_per_layer=True,
)
UMT5_BASE = T5TextConfig(
    vocabulary=256384,
    hidden_size=768,
    intermediate_size=2048,
    num_layers=12,
    num_heads=12,
    head_width=64,
    buckets=32,
    gated=True,
    bias_per_layer=True,
)
T5_XXL_OLD = T5TextConfig(
    vocabulary=32128,
    hidden_size=1024,
    intermediate_size=65536,
    num_layers=24,
    num_heads=128,
    head_width=128,
    buckets=32,
    gated=False,
    bias_per_layer=False,
)
T5_BASE = T5TextConfig(
    vocabulary=32128,
    hidden_size=768,
    intermediate_size=3072,
    num_layers=12,
    num_heads=12,
    head_width=64,
    buckets=32,
    gated=False,
    bias_per_layer=False,
)
BYT5_SMALL_GLYPH = T5TextConfig(
    vocabulary=1510,
    hidden_size=1472,
    intermediate_size=3584,
    num_layers=12,
    num_heads=6,
    head_width=64,
    buckets=32,
    gated=True,
    bias_per_layer=False,
)
