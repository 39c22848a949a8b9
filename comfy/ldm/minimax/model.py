"""Names of MiniMax models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "MiniMax models",
    "time_shift_sigma() patchify_video() unpatchify_video() pack_audio() unpack_audio() mask_row_values() TimeEmbedder "
    "rope_rotation_table() Attention MLP AdalnProj _mod_scale_shift() _mod_gate() RefinerBlock TokenRefiner DiTBlock FinalLayer "
    "PackedLayout:object MiniMaxH3Model",
)
