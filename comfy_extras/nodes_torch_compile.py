"""The node that compiles a diffusion model with ``torch.compile``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def skip_torch_compile_dict(guard_entries: Iterable[Any]) -> list[bool]:
    """Which of torch's guards count: those on ``transformer_options`` do not, as they change at each step and would compile anew."""
    return ["transformer_options" not in entry.name for entry in guard_entries]


class TorchCompileModel(io.ComfyNode):
    """Compiles a diffusion model when it runs first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TorchCompileModel",
            category="experimental",
            inputs=[io.Model.Input("model"), io.Combo.Input("backend", options=["inductor", "cudagraphs"], advanced=True)],
            outputs=[io.Model.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, backend: str) -> io.NodeOutput:
        """A clone of *model* that uses the compiled network. Nothing is compiled before the first step."""
        clone = model.clone(disable_dynamic=True)
        options: Any = {"guard_filter_fn": skip_torch_compile_dict}
        set_torch_compile_wrapper(model=clone, backend=backend, options=options)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(TorchCompileModel)
