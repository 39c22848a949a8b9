"""Names of Stable Audio models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Audio models",
    "vae_sample() VAEBottleneck snake_beta() SnakeBeta WNConv1d() WNConvTranspose1d() get_activation() ResidualUnit EncoderBlock "
    "DecoderBlock OobleckEncoder OobleckDecoder AudioOobleckVAE",
)
