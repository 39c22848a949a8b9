"""Names of Hunyuan DiT models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Hunyuan DiT models",
    "get_fill_resize_and_crop() get_meshgrid() get_2d_sincos_pos_embed() get_2d_sincos_pos_embed_from_grid() "
    "get_1d_sincos_pos_embed_from_grid() get_2d_rotary_pos_embed() get_2d_rotary_pos_embed_from_grid() get_1d_rotary_pos_embed() "
    "calc_sizes() init_image_posemb()",
)
