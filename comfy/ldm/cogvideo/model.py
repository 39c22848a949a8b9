"""Names of CogVideoX models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "CogVideoX models",
    "apply_rotary_emb() get_timestep_embedding() get_3d_sincos_pos_embed() CogVideoXPatchEmbed CogVideoXLayerNormZero "
    "CogVideoXAdaLayerNorm CogVideoXBlock CogVideoXTransformer3DModel",
)
