"""Names of Mochi models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Mochi models",
    "modulated_rmsnorm() residual_tanh_gated_rmsnorm() AsymmetricAttention AsymmetricJointBlock FinalLayer AsymmDiTJoint",
)
