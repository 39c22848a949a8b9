"""Noise levels that a search among a teacher's steps found best for three flow models (Pei et al. 2025, arXiv:2503.21774)."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.nodes_align_your_steps import last_steps


def _levels(text: str) -> list[float]:
    return [float(level) for level in text.split()]


# Published at bebebe666/OptimalSteps; the last level stands for zero.
NOISE_LEVELS: dict[str, list[float]] = {
    "FLUX": _levels("0.9968 0.9886 0.9819 0.975 0.966 0.9471 0.9158 0.8287 0.5512 0.2808 0.001"),
    "Wan": _levels(
        "1.0 0.997 0.995 0.993 0.991 0.989 0.987 0.985 0.98 0.975 0.973 0.968 0.96 0.946 0.927 0.902 0.864 0.776 0.539 0.208 0.001"
    ),
    "Chroma": _levels(
        "0.992 0.99 0.988 0.985 0.982 0.978 0.973 0.968 0.961 0.953 0.943 0.931 0.917 0.9 0.881 0.858 0.832 0.802 0.769 "
        "0.731 0.69 0.646 0.599 0.55 0.501 0.451 0.402 0.355 0.311 0.27 0.232 0.199 0.169 0.143 0.12 0.101 0.084 0.07 "
        "0.058 0.048 0.001"
    ),
}


class OptimalStepsScheduler(io.ComfyNode):
    """Makes the sigmas of a schedule that was searched for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OptimalStepsScheduler",
            category="model/sampling/schedulers",
            inputs=[
                io.Combo.Input("model_type", options=list(NOISE_LEVELS)),
                io.Int.Input("steps", default=20, min=3, max=1000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model_type: str, steps: int, denoise: float) -> io.NodeOutput:
        """Sigmas for the last share *denoise* of *steps* steps, ending with 0; none for a share of 0."""
        return io.NodeOutput(last_steps(NOISE_LEVELS[model_type], steps, denoise))


class OptimalStepsExtension(ComfyExtension):
    """The extension with this node."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [OptimalStepsScheduler]


async def comfy_entrypoint() -> OptimalStepsExtension:
    """The extension, for the pack loader."""
    return OptimalStepsExtension()
