"""Names of models in folders of the Diffusers library that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "models in folders of the Diffusers library",
    "reshape_weight_for_sd() convert_vae_state_dict() cat_tensors() convert_text_enc_state_dict_v20() convert_text_enc_state_dict() "
    "load_diffusers()",
)
