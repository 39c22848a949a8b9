"""No tensor of a file is ignored in silence: each is used, known to do no harm, or named in the log."""

import logging
import re
from collections.abc import Collection, Iterable

log = logging.getLogger(__name__)

EXAMPLES = 3

HARMLESS = (
    (r"^(model_)?ema\b|^model_ema\.", "a running mean of the weights, which training keeps"),
    (r"^(betas|alphas_cumprod(_prev)?|sqrt_.*|log_one_minus_.*|posterior_.*|lvlb_weights|logvar)$", "the noise schedule of training"),
    (r"^(denoiser\.sigmas|scale_factor|global_step|epoch)$", "settings of training that the family fixes"),
    (r"^__index_timestep_zero__$", "a mark of Qwen-Image-Edit's later files; read when the family is detected"),
    (r"^(edm_mean|edm_std|edm_vpred\.sigma_(min|max)|v_pred|ztsnr)$", "marks that tell the kind of prediction; read when it is detected"),
    (r"(^|\.)_?repa_projectors?\.", "what training compares with an image encoder"),
    (r"(^|\.)position_ids$", "numbers from 0, which are computed"),
    (r"(^|\.)logit_scale$", "temperature of CLIP's training"),
    (r"(^|\.)(text_projection(\.weight)?|text_projection\.bias)$", "projection of pooled text, where the family takes it unprojected"),
    (r"^(vision_model|visual|visual_projection)\b", "the half of CLIP that looks at pictures"),
    (r"(^|\.)loss\.", "the critic that autoencoders are trained against"),
    (r"(sampler|samples\.\d+)\.time_conv\.", "what autoencoders of videos do between frames, where they are used for pictures"),
    (r"(^|\.)per_channel_statistics\.(channel|mean-of-stds)", "figures of LTX's latents that nothing is computed from"),
    (r"(^|\.)stft_fn\.inverse_basis$", "the way back of a transform that is made one way only"),
    (r"^motion_encoder\.enc\..*\.kernel$", "fixed numbers that pictures of faces are blurred by"),
    (
        r"^(logvar\.\d\.\w+|pos_embedder\.(seq|dim_\w+_range)|accum_\w+)$",
        "what Cosmos's training weighs and counts by; numbers that are computed",
    ),
    (r"^(en|de)coder\.(un)?patcher3d\.", "the fixed numbers of Haar's transform in Cosmos's autoencoder"),
    (r"(^|\.)num_batches_tracked$", "a count of training"),
    (r"(^|\.)attn\.rope\.rope\.freqs$", "how fast places are turned, which is computed"),
    (r"(^|\.)bottleneck\.noise_scaling_factor$", "how loud the noise is that an autoencoder of sound adds as channels: there are none"),
    (r"^(decoder\.(block\.\d+|final_layer_norm|embed_tokens)\.|lm_head\.weight$)", "the half of T5 that writes text"),
    (r"^encoder\.embed_tokens\.weight$", "T5's table of embeddings, which is shared.weight once more"),
    (r"^(text_encoders\.)?(spiece_model|tokenizer_json|tekken_model)$", "the tokenizer, which is read by itself"),
)
CHECKPOINT_PARTS = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.",
    "text_encoders.",
    "control_model.",
    "vae.",
    "audio_vae.",
    "vocoder.",
    "text_embedding_projection.",
)
_ANY_HARMLESS = re.compile("|".join(f"(?:{pattern})" for pattern, _ in HARMLESS))


def is_harmless(key: str) -> bool:
    """Whether the tensor *key* (named within its component) may go unused without a word."""
    return _ANY_HARMLESS.search(key) is not None


def say_unused(name: str, what: str, keys: Iterable[str], used: Collection[str]) -> None:
    """One line naming those of *keys* that the component *what* of the file *name* neither used nor need use; nothing without any."""
    unused = [key for key in keys if key not in used and not is_harmless(key)]
    if unused:
        examples = ", ".join(unused[:EXAMPLES])
        log.warning("%s: %d tensors are not used (%s), such as %s", name, len(unused), what, examples)


def outside(keys: Iterable[str], prefixes: tuple[str, ...]) -> list[str]:
    """Those of *keys* that belong neither below *prefixes* nor to another part of a checkpoint."""
    return [key for key in keys if not key.startswith((*prefixes, *CHECKPOINT_PARTS))]
