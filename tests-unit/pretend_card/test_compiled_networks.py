"""A network that ``TorchCompileModel`` compiles gives the plain one's results, with its weights on the card and on the host."""

from __future__ import annotations

import pathlib

import pytest
import torch
from engine import FP32, engine, on_host

from comfy_api.torch_helpers import set_torch_compile_wrapper


@pytest.mark.long
@pytest.mark.parametrize("flags", [{}, {"novram": True}])
def test_a_compiled_network_is_the_plain_one(models: pathlib.Path, flags: dict[str, bool]) -> None:
    with engine(1, **flags, **FP32) as made:
        model, _, _, positive, negative = made.parts()
        expected = on_host(made.sample(model, positive, negative, steps=1)).clone()
        clone = model.clone()
        set_torch_compile_wrapper(model=clone, backend="eager")
        assert torch.allclose(on_host(made.sample(clone, positive, negative, steps=1)), expected, atol=1e-4)
        assert torch.equal(on_host(made.sample(model, positive, negative, steps=1)), expected), "the base stays as it was"
        del model, clone
        torch.compiler.reset()
