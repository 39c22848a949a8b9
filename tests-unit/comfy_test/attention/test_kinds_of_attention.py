"""Every kind of attention computes the same, takes the same arguments, and is chosen by its flag."""

import importlib
import logging
import types

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import comfy.ldm.modules.attention as attention
import comfy.ldm.modules.attention_in_parts as in_parts
import comfy.ldm.modules.attention_packages as packages
import comfy.ldm.modules.diffusionmodules.model as autoencoder
import comfy.model_management
import comfy.ops
from comfy.cli_args import args

HEADS, WIDTH = 4, 16
OWN = {"pytorch": attention.attention_pytorch, "split": attention.attention_split, "sub_quad": attention.attention_sub_quad}
OWN["basic"] = attention.attention_basic


def tensors(tokens: int = 37, keys: int = 53, key_heads: int = HEADS, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = ((tokens, HEADS), (keys, key_heads), (keys, key_heads))
    return [torch.randn(2, length, heads * WIDTH, generator=generator).to(dtype) for length, heads in sizes]


def heads_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unflatten(2, (-1, WIDTH)).transpose(1, 2)


def masks() -> dict[str, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(4)
    keeps = torch.rand(2, 37, 53, generator=generator) > 0.3
    additive = torch.randn(37, 53, generator=generator)
    per_key = torch.zeros(2, 1, 1, 53).masked_fill(torch.rand(2, 1, 1, 53, generator=generator) > 0.7, -torch.inf)
    return {"none": None, "boolean": keeps, "additive": additive, "one row for all queries": per_key}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for a few rows of scores at a time."""
    monkeypatch.setattr(in_parts, "LEAST_BYTES", 12_000)
    monkeypatch.setattr(in_parts, "SHARE_OF_FREE", 0)
    monkeypatch.setattr(in_parts, "QUERY_ROWS", (16, 8))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("mask", masks())
def test_all_of_torch_are_the_same(name: str, mask: str) -> None:
    q, k, v = tensors()
    chosen = masks()[mask]
    shaped = chosen[:, None] if chosen is not None and chosen.ndim == 3 else chosen
    expected = scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v), attn_mask=shaped)
    joined = OWN[name](q, k, v, HEADS, mask=chosen)
    assert torch.allclose(joined, expected.transpose(1, 2).flatten(2), atol=1e-5)
    split = OWN[name](heads_of(q), heads_of(k), heads_of(v), HEADS, mask=chosen, skip_reshape=True, skip_output_reshape=True)
    assert torch.allclose(split, expected, atol=1e-5)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", OWN)
def test_shared_heads_and_another_scale(name: str) -> None:
    q, k, v = tensors(key_heads=2)
    expected = scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v), scale=0.1, enable_gqa=True).transpose(1, 2).flatten(2)
    assert torch.allclose(OWN[name](q, k, v, HEADS, scale=0.1, enable_gqa=True), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["split", "sub_quad", "basic"])
def test_scores_are_computed_in_the_precision_that_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (tensor * 20 for tensor in tensors(dtype=torch.bfloat16))
    exact = scaled_dot_product_attention(*(heads_of(tensor.double()) for tensor in (q, k, v))).transpose(1, 2).flatten(2)

    def error(**precision: torch.dtype) -> float:
        found = OWN[name](q, k, v, HEADS, **precision)
        assert found.dtype == torch.bfloat16
        return (found.double() - exact).abs().mean().item()

    assert error(attn_precision=torch.float32) < 0.5 * error()
    monkeypatch.setattr(args, "dont_upcast_attention", True)
    assert error(attn_precision=torch.float32) == error()


def test_running_out_of_memory_halves_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = tensors()
    attended, sizes = in_parts._attended, []

    def small_only(queries: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        sizes.append(queries.shape[-2])
        if queries.shape[-2] > 10:
            raise torch.OutOfMemoryError
        return attended(queries, *rest)

    monkeypatch.setattr(in_parts, "_attended", small_only)
    found = attention.attention_split(q, k, v, HEADS)
    assert torch.allclose(found, attention.attention_pytorch(q, k, v, HEADS), atol=1e-5) and sizes[:3] == [37, 19, 10]
    monkeypatch.setattr(in_parts, "_attended", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        attention.attention_split(q, k, v, HEADS)


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention._in_use, "function", None)


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize(
    ("flag", "name"), [("use_split_cross_attention", "split"), ("use_quad_cross_attention", "sub_quad"), (None, "pytorch")]
)
def test_a_flag_chooses_once_and_says_so(
    flag: str | None, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    if flag is not None:
        monkeypatch.setattr(args, flag, True)
    q, k, v = tensors()
    for _ in range(2):
        attention.optimized_attention(q, k, v, HEADS)
    assert attention.chosen_attention() is OWN[name]
    assert [record.message for record in caplog.records if record.message.startswith("Attention: ")][0].startswith(f"Attention: {name}")
    assert caplog.text.count("Attention: ") == 1


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **functions: object) -> None:
    """A package *module* with *functions*, as if it were installed."""
    found = types.ModuleType(module)
    vars(found).update(functions)
    real = importlib.import_module
    monkeypatch.setattr(packages.importlib, "import_module", lambda name: found if name == module else real(name))
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: found if name == module else None)
    packages._kernel.cache_clear()
    packages._say_failure.cache_clear()
    monkeypatch.setattr(attention, "REGISTERED_ATTENTION_FUNCTIONS", dict(attention.REGISTERED_ATTENTION_FUNCTIONS))


@pytest.mark.usefixtures("undecided")
def test_sage_attention_by_its_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def sageattn(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tensor_layout: str, sm_scale: float | None, **rest: object
    ) -> torch.Tensor:
        seen.append((tensor_layout, tuple(q.shape), tuple(k.shape), rest))
        return scaled_dot_product_attention(q, k, v, scale=sm_scale)

    stand_in(monkeypatch, "sageattention", sageattn=sageattn)
    monkeypatch.setattr(args, "use_sage_attention", True)
    q, k, v = tensors(key_heads=2)
    expected = attention.attention_pytorch(q, k, v, HEADS, enable_gqa=True)
    assert torch.allclose(attention.optimized_attention(q, k, v, HEADS, enable_gqa=True), expected, atol=1e-5)
    assert seen == [("HND", (2, HEADS, 37, WIDTH), (2, HEADS, 53, WIDTH), {"is_causal": False, "smooth_k": False})]
    mask = torch.rand(37, 53) > 0.5
    assert torch.equal(
        attention.optimized_attention(q, k, v, HEADS, mask=mask, enable_gqa=True),
        attention.attention_pytorch(q, k, v, HEADS, mask=mask, enable_gqa=True),
    )
    attention.optimized_attention(q, k, v, HEADS, enable_gqa=True, low_precision_attention=False)
    assert len(seen) == 1, "masks it does not take, and callers who want precision, get torch's"
    assert attention.SAGE_ATTENTION_IS_AVAILABLE and not attention.FLASH_ATTENTION_IS_AVAILABLE


def test_flash_attention_and_a_kernel_that_refuses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    shapes = []

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, softmax_scale: float | None, causal: bool) -> torch.Tensor:
        shapes.append(tuple(q.shape))
        if len(shapes) > 1:
            raise ValueError("no kernel for this card")
        return scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), scale=softmax_scale).transpose(1, 2)

    stand_in(monkeypatch, "flash_attn", flash_attn_func=flash_attn_func)
    flash = attention.get_attention_function("flash")
    q, k, v = tensors(dtype=torch.bfloat16)
    expected = attention.attention_pytorch(q, k, v, HEADS)
    for _ in range(3):
        assert torch.equal(flash(q, k, v, HEADS), expected)
    assert shapes[0] == (2, 37, HEADS, WIDTH) and caplog.text.count("no kernel for this card") == 1
    flash(*tensors(), HEADS)
    assert len(shapes) == 3, "only half precision is asked of it"


def test_comfy_kitchens_attention_where_the_card_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def int8_attention(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, attn_mask: torch.Tensor | None
    ) -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale)

    stand_in(monkeypatch, "comfy_kitchen", int8_attention=int8_attention, int8_attention_is_available=lambda: True)
    function = attention.get_attention_function("comfy_kitchen_int8")
    q, k, v = tensors()
    assert torch.equal(function(q, k, v, HEADS, mask=torch.ones(37, 53).bool()), attention.attention_pytorch(q, k, v, HEADS))
    stand_in(monkeypatch, "comfy_kitchen", int8_attention_is_available=lambda: False)
    attention.REGISTERED_ATTENTION_FUNCTIONS.pop("comfy_kitchen_int8", None)
    assert attention.get_attention_function("comfy_kitchen_int8", None) is None


@pytest.mark.usefixtures("undecided")
def test_an_attention_that_is_not_here_is_torchs_and_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(args, "use_flash_attention", True)
    assert attention.chosen_attention() is attention.attention_pytorch and "is not on this machine" in caplog.text


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (1, 8, 3, 4, 5)])
def test_autoencoders_attend_in_parts_where_a_flag_asks_for_it(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, *shape, generator=torch.Generator().manual_seed(6)).unbind()
    attend, parts = autoencoder.vae_attention(), []
    expected = attend(q, k, v)
    monkeypatch.setattr(args, "use_split_cross_attention", True)
    attended = in_parts._attended
    monkeypatch.setattr(in_parts, "_attended", lambda *given: parts.append(1) or attended(*given))
    assert torch.allclose(attend(q, k, v), expected, atol=1e-5) and len(parts) > 1


def test_small_inputs_and_the_processor_get_torchs() -> None:
    for_device = attention.optimized_attention_for_device
    assert for_device(torch.device("cuda"), small_input=True) is for_device(torch.device("cpu")) is attention.attention_pytorch
    assert for_device(torch.device("cuda"), mask=True) is attention.optimized_attention_masked


def test_estimates_count_on_fused_attention_unless_parts_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names = comfy.model_management
    monkeypatch.setattr(names, "cpu_mode", lambda: False)
    monkeypatch.setattr(names, "mps_mode", lambda: False)
    assert names.pytorch_attention_enabled()
    monkeypatch.setattr(args, "use_quad_cross_attention", True)
    assert not names.pytorch_attention_enabled()
    assert not names.sage_attention_enabled() and not names.flash_attention_enabled() and not names.comfy_kitchen_attention_enabled()
