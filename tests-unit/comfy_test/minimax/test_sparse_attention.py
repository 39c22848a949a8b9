"""Sparse attention: the same numbers as masked attention over blocks chosen here, dense where all are kept or where it must be, errors."""

import logging
import types

import pytest
import torch
from minimax_files import minimax_file
from test_minimax_network import CONTEXT, numbers

import comfy.sample
import comfy.sd
from comfy.ldm.minimax.layout import PackedLayout
from comfy.ldm.modules import sparse_attention
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.sparse_attention import SparseAttention, tiling
from comfy.nested_tensor import NestedTensor
from comfy.quantisation import kitchen
from comfy_extras.nodes_sparse_attention import BlockSparseAttention, block_numbers

pytest.importorskip("comfy_kitchen")

HEADS, WIDTH = 2, 128  # the only width that comfy-kitchen takes
SINKS = "exact_kv_and_rows"


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def override(method="vsa", tau=1.0, share=0.3, sinks=SINKS, **more):
    given = {"highest": 900.0, "lowest": 0.0, "least_rows": 0, "dense_blocks": frozenset(), "extra_rows": 0, "is_told": False, **more}
    return SparseAttention(method, tau, share, sinks=sinks, **given)


def attended(function, parts, layout=None, **options):
    options = {"sigmas": torch.tensor([500.0]), "block_index": 1, "minimax_h3_layout": layout, **options}
    return optimized_attention(
        *parts,
        HEADS,
        skip_reshape=True,
        transformer_options={**options, **({} if function is None else {"optimized_attention_override": function})},
    )


def queries_keys_values(rows):
    return [numbers(1, HEADS, rows, WIDTH, seed=seed) for seed in (1, 2, 3)]


def masked(parts, blocks, allowed):
    """Attention in which the rows of block i (a list of rows) see those of block j where ``allowed[head, i, j]``."""
    mask = torch.zeros(1, HEADS, parts[0].shape[2], parts[0].shape[2], dtype=torch.bool)
    for i, rows in enumerate(blocks):
        for j, seen in enumerate(blocks):
            mask[0, :, rows[:, None], seen[None]] = allowed[:, i, j, None, None]
    out = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


def best(parts, blocks, count, fixed=0):
    """For each head and block, the *count* best of the blocks from number *fixed* on, by the means of their rows, and its neighbours."""
    query, key = (torch.stack([part[0][:, rows].mean(1) for rows in blocks], 1) for part in parts[:2])
    scores = query @ key.transpose(1, 2)
    scores[..., :fixed] = -torch.inf
    allowed = torch.zeros_like(scores, dtype=torch.bool).scatter(2, scores.topk(count).indices, True)
    near = torch.arange(len(blocks))
    return allowed | ((near[:, None] - near).abs() <= 1)


def layout_of(grid=(6, 8, 9), text=70, audio=5):
    return PackedLayout(text, grid[0], 2 * grid[1], 2 * grid[2], audio)


def blocks_of(layout, grid):
    """Rows of each block: what stands before the video in runs of 64, the video in cubes of 4 x 4 x 4."""
    blocks, before = [], 0
    for start, stop, kind in layout.segments:
        if kind != "video":
            blocks += torch.arange(start, stop).split(64)
            before = len(blocks)
            continue
        cubes = {}
        for number, place in enumerate(torch.cartesian_prod(*(torch.arange(length) for length in grid))):
            cubes.setdefault(tuple((place // 4).tolist()), []).append(start + number)
        blocks += [torch.tensor(cubes[place]) for place in sorted(cubes)]
    return blocks, before


@pytest.mark.parametrize("gated", [False, True])
def test_cubes_of_a_video_see_the_best_cubes_and_all_that_stands_before(gated):
    grid = (6, 8, 9)
    layout = layout_of(grid)
    parts = queries_keys_values(layout.seq_len)
    blocks, before = blocks_of(layout, grid)
    videos = len(blocks) - before
    assert (before, videos) == (3, 12)
    allowed = best(parts, blocks, round(0.3 * videos), before)
    allowed[:, :, :before] = allowed[:, :before] = True
    expected = masked(parts, blocks, allowed)
    options = {}
    if gated:
        gates = numbers(layout.seq_len, HEADS * WIDTH, seed=4)
        query, key, value = (torch.stack([part[0][:, rows].mean(1) for rows in blocks], 1) for part in parts)
        coarse = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        for number, rows in enumerate(blocks):
            expected[0, rows] += gates[rows] * coarse[:, number].flatten()
        options = {"minimax_h3_gate": lambda: gates}
    assert not allowed.all()
    torch.testing.assert_close(attended(override(), parts, layout, **options), expected, rtol=1e-4, atol=1e-5)


def test_the_best_share_of_blocks_is_seen_and_the_rest_as_one_value_each():
    parts = queries_keys_values(640)
    parts[1] -= parts[1].mean(2, keepdim=True)  # dense attention is the same; the one value of a block is of such keys
    blocks = torch.arange(640).split(64)
    allowed = best(parts, blocks, 3)
    logits = parts[0] @ parts[1].transpose(2, 3) * WIDTH**-0.5
    rows = torch.arange(640) // 64
    seen = allowed[:, rows][:, :, rows]
    query, key = (part.unflatten(2, (-1, 64)).mean(3) for part in parts[:2])
    coarse = (query @ key.transpose(2, 3) * WIDTH**-0.5)[:, :, rows].masked_fill(allowed[:, rows], -torch.inf)
    weights = torch.cat([logits.masked_fill(~seen, -torch.inf), coarse + torch.log(torch.tensor(64.0))], -1).softmax(-1)
    values = torch.cat([parts[2], parts[2].unflatten(2, (-1, 64)).mean(3)], 2)
    expected = (weights @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attended(override("sla"), parts), expected, rtol=1e-4, atol=1e-5)


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_a_lower_threshold_is_nearer_to_what_dense_attention_gives():
    parts = queries_keys_values(704)
    dense = attended(None, parts)
    few, many = (error(attended(override("sol-attn", tau=tau), parts), dense) for tau in (4.0, 0.0))
    assert 0 < many < few < 1


@pytest.mark.parametrize("method", ["sol-attn", "sla", "vsa"])
def test_where_all_blocks_are_seen_it_is_dense_attention(method):
    layout = layout_of((4, 4, 8), text=40, audio=3)
    parts = queries_keys_values(layout.seq_len if method == "vsa" else 128)
    found = attended(override(method, share=0.95), parts, layout)
    torch.testing.assert_close(found, attended(None, parts), rtol=1e-4, atol=1e-5)


def test_what_stands_before_the_video_is_exact_for_all_and_the_sound_sees_all():
    layout = layout_of((4, 8, 16), text=64, audio=64)
    parts = queries_keys_values(layout.seq_len)
    dense = attended(None, parts)
    off, exact, rows = (attended(override("sol-attn", tau=4.0, sinks=sinks), parts, layout) for sinks in ("off", "exact_kv", SINKS))
    sound = slice(*layout.span("audio"))
    torch.testing.assert_close(rows[:, sound], dense[:, sound], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(exact[:, sound], dense[:, sound], rtol=1e-4, atol=1e-5)
    assert error(exact, dense) < error(off, dense)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"highest": 400.0}, {}),
        ({"lowest": 600.0}, {}),
        ({"least_rows": 10_000}, {}),
        ({"dense_blocks": frozenset({1})}, {}),
        ({}, {"minimax_h3_layout": None}),
    ],
)
def test_calls_that_are_to_stay_dense_go_to_the_function_before(settings, options):
    layout = layout_of()
    parts = queries_keys_values(layout.seq_len)
    calls = []

    def before(function, *given, **named):
        calls.append(1)
        return function(*given, **named)

    found = attended(override(previous=before, **settings), parts, layout, **options)
    assert calls == [1] and torch.equal(found, attended(None, parts))


def test_calls_with_masks_and_of_other_keys_stay_dense(monkeypatch):
    parts = queries_keys_values(192)
    mask = torch.ones(192, 192).tril().bool()
    options = {"optimized_attention_override": override("sla")}
    found = optimized_attention(*parts, HEADS, mask, skip_reshape=True, transformer_options=options)
    assert torch.equal(found, optimized_attention(*parts, HEADS, mask, skip_reshape=True))
    shorter = [parts[0], parts[1][:, :, :70], parts[2][:, :, :70]]
    assert torch.equal(attended(override("sla"), shorter), attended(None, shorter))
    narrow = [part[..., :64] for part in parts]
    assert torch.equal(attended(override("sla"), narrow), attended(None, narrow))
    monkeypatch.setattr(kitchen, "is_installed", lambda: False)
    assert torch.equal(attended(override("sla", tau=0), parts), attended(None, parts))


def test_joined_heads_and_few_heads_at_a_time_give_the_same(monkeypatch):
    parts = queries_keys_values(320)
    expected = attended(override("sla"), parts)
    monkeypatch.setattr(sparse_attention, "SCORE_BYTES", 1)
    joined = [part.transpose(1, 2).flatten(2) for part in parts]
    options = {"optimized_attention_override": override("sla")}
    assert torch.equal(optimized_attention(*joined, HEADS, transformer_options=options), expected)


def test_every_row_has_one_place_in_tiles():
    layout = layout_of((5, 6, 7), text=65, audio=2)
    plan = tiling((5, 6, 7), tuple(layout.segments), torch.device("cpu"))
    assert torch.equal(plan.rows[plan.places], torch.arange(layout.seq_len))
    lengths = (plan.rows.view(-1, 64) >= 0).sum(1)
    assert torch.equal(plan.lengths, lengths.int()) and plan.before == 3
    assert all((rows[:length] >= 0).all() for rows, length in zip(plan.rows.view(-1, 64), lengths.tolist()))
    with pytest.raises(ValueError, match="has no cubes"):
        tiling((5, 6, 6), tuple(layout.segments), torch.device("cpu"))


def chosen(method, **values):
    return {"selection": method, **values}


def test_a_model_with_gates_samples_other_videos_with_the_node(tmp_path, caplog):
    model = comfy.sd.load_diffusion_model(minimax_file(tmp_path / "gates.safetensors", gates=True, head=128))
    assert model.model.diffusion_model.blocks[1].attn.to_gate_compress.weight.shape == (256, 48)
    latent = NestedTensor([numbers(1, 24, 8, 8, 16), numbers(1, 32, 2, 3)])

    def sampled(patched):
        told = [[numbers(1, 5, CONTEXT), {}]]
        noise = NestedTensor([numbers(*part.shape, seed=7) for part in latent.unbind()])
        return comfy.sample.sample(patched, noise, 2, 1.0, "euler", "simple", told, told, latent, disable_pbar=True, seed=1).unbind()[0]

    settings = {"end_percent": 1.0, "min_tokens": 0, "verbose": True}
    plain = sampled(model)
    (patched,) = BlockSparseAttention.execute(model, chosen("vsa", keep_percent=10.0), 0.0, **settings).args
    (twin,) = BlockSparseAttention.execute(model, chosen("vsa", keep_percent=10.0), 0.0, **settings).args
    sparse_attention._tell.cache_clear()
    with caplog.at_level(logging.INFO):
        sparse = sampled(patched)
    assert torch.isfinite(sparse).all() and error(sparse, plain) > 1e-3
    assert torch.equal(sampled(twin), sparse) and torch.equal(sampled(model), plain)
    assert "Sparse attention" in caplog.text and ": vsa" in caplog.text
    (never,) = BlockSparseAttention.execute(model, chosen("vsa", keep_percent=10.0), 1.0, **settings).args
    assert torch.equal(sampled(never), plain)


def test_vsa_is_for_minimax_alone_and_says_where_gates_are_missing(tmp_path, caplog):
    model = comfy.sd.load_diffusion_model(minimax_file(tmp_path / "plain.safetensors"))
    BlockSparseAttention.execute(model, chosen("vsa", keep_percent=10.0), 0.2, 1.0)
    assert "has no to_gate_compress" in caplog.text
    other = types.SimpleNamespace(get_model_object=lambda name: torch.nn.Module())
    with pytest.raises(ValueError, match="vsa is for MiniMax H3"):
        BlockSparseAttention.execute(other, chosen("vsa", keep_percent=10.0), 0.2, 1.0)


def test_numbers_of_blocks_are_read_from_texts():
    assert block_numbers("0, 1, 47-49 and 9 - 7") == {0, 1, 7, 8, 9, 47, 48, 49} and block_numbers("") == frozenset()
