import ctypes
import inspect
from types import SimpleNamespace

import pytest
import torch

import comfy.conds
import comfy.model_management
import comfy.samplers
from comfy.sampling import cond_batches, cond_hooks, cond_preparation, cond_regions


class RecordingModel:
    """Answers with the value in its conditioning; keeps what it was called with."""

    def __init__(self, bytes_per_entry=1.0):
        self.calls = []
        self.bytes_per_entry = bytes_per_entry
        self.current_patcher = SimpleNamespace(prepare_state=lambda timestep, options: None, apply_hooks=lambda hooks: {})

    def memory_required(self, shape, cond_shapes):
        return shape[0] * self.bytes_per_entry

    def apply_model(self, x, sigma, value=None, transformer_options=None, **kwargs):
        self.calls.append({"x": x, "sigma": sigma, "options": transformer_options, **kwargs})
        return torch.ones_like(x) * value.view(-1, 1, 1, 1)


def cond(value, batch=1, **extra):
    return {"model_conds": {"value": comfy.conds.CONDRegular(torch.full((batch, 1), float(value)))}, "uuid": f"id{value}", **extra}


def evaluate(model, conds, x=None, options=None, sigma=1.0):
    x = torch.zeros(1, 4, 16, 16) if x is None else x
    return comfy.samplers.calc_cond_batch(model, conds, x, torch.full((len(x),), sigma), {} if options is None else options)


def test_both_sides_share_one_call_last_ones_first():
    model = RecordingModel()
    positive, negative = evaluate(model, [[cond(1)], [cond(2)]])
    assert len(model.calls) == 1
    assert model.calls[0]["options"]["cond_or_uncond"] == [1, 0]
    assert model.calls[0]["options"]["uuids"] == ["id2", "id1"]
    assert (positive == 1).all()
    assert (negative == 2).all()


def test_a_missing_side_gives_zeros():
    positive, negative = evaluate(RecordingModel(), [[cond(1)], None])
    assert (positive == 1).all()
    assert (negative == 0).all()


@pytest.mark.parametrize(("free_bytes", "sizes"), [(10.0, [3]), (4.0, [1, 2]), (0.5, [1, 1, 1])])
def test_as_many_conditionings_as_memory_allows_share_a_call(monkeypatch, free_bytes, sizes):
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: free_bytes)
    model = RecordingModel()
    (picture,) = evaluate(model, [[cond(1), cond(2), cond(3)]])
    assert [len(call["x"]) for call in model.calls] == sizes
    assert torch.allclose(picture, torch.full_like(picture, 2.0))


def test_different_shapes_run_apart():
    model = RecordingModel()
    evaluate(model, [[cond(1)], [cond(2, area=(8, 8, 0, 0))]])
    assert sorted(tuple(call["x"].shape) for call in model.calls) == [(1, 4, 8, 8), (1, 4, 16, 16)]


def test_different_controls_run_apart_and_the_control_sees_the_call():
    seen = []
    control = SimpleNamespace(get_control=lambda *args: seen.append(args) or "residuals")
    model = RecordingModel()
    evaluate(model, [[cond(1, control=control)], [cond(2)]])
    assert len(model.calls) == 2
    assert [call.get("control") for call in model.calls].count("residuals") == 1
    assert seen[0][3] == 1
    assert seen[0][4] is next(call["options"] for call in model.calls if "control" in call)


def test_overlapping_areas_are_averaged_by_strength():
    x = torch.zeros(1, 4, 8, 8)
    (picture,) = evaluate(RecordingModel(), [[cond(1, strength=3.0), cond(5, strength=1.0)]], x)
    assert torch.allclose(picture, torch.full_like(picture, 2.0))


def test_an_area_fades_in_where_other_conditioning_lies_beside_it():
    x = torch.zeros(1, 4, 32, 32)
    placed = comfy.samplers.get_area_and_mult(cond(1, area=(16, 32, 16, 0)), x, torch.ones(1))
    rows = placed.mult[0, 0, :, 5]
    assert rows[:4].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert (rows[4:] == 1).all()
    assert placed.input_x.shape == (1, 4, 16, 32)
    assert placed.area == [16, 32, 16, 0]


def test_an_area_beyond_the_latent_is_cut():
    placed = comfy.samplers.get_area_and_mult(cond(1, area=(64, 64, 8, 4)), torch.zeros(1, 4, 16, 16), torch.ones(1))
    assert placed.area == [8, 12, 8, 4]


def test_a_mask_weighs_the_result():
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    (picture,) = evaluate(RecordingModel(), [[cond(1, mask=mask, mask_strength=3.0), cond(5)]])
    assert torch.allclose(picture[:, :, :8], torch.full((1, 4, 8, 16), 2.0))
    assert torch.allclose(picture[:, :, 8:], torch.full((1, 4, 8, 16), 5.0))


def test_a_mask_is_repeated_over_the_batch_and_cut_to_the_area():
    mask = torch.rand(1, 16, 16)
    placed = comfy.samplers.get_area_and_mult(cond(1, batch=2, mask=mask, area=(8, 8, 4, 2)), torch.zeros(2, 4, 16, 16), torch.ones(1))
    assert torch.equal(placed.mult[1, 3], mask[0, 4:12, 2:10])


@pytest.mark.parametrize(("sigma", "acts"), [(5.0, False), (4.0, True), (2.0, True), (1.5, False)])
def test_conditioning_acts_inside_its_range(sigma, acts):
    placed = comfy.samplers.get_area_and_mult(cond(1, timestep_start=4.0, timestep_end=2.0), torch.zeros(1, 4, 8, 8), torch.tensor([sigma]))
    assert (placed is not None) == acts


def test_default_conditioning_fills_what_the_others_leave():
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    (picture,) = evaluate(RecordingModel(), [[cond(1, mask=mask), cond(7, default=True)]])
    assert (picture[:, :, :8] == 1).all()
    assert (picture[:, :, 8:] == 7).all()


def test_default_conditioning_is_not_run_where_nothing_is_left():
    model = RecordingModel()
    evaluate(model, [[cond(1), cond(7, default=True)]])
    assert len(model.calls[0]["x"]) == 1


def test_the_function_wrapper_gets_the_call():
    def wrapper(apply_model, call):
        assert call["cond_or_uncond"] == [1, 0]
        return apply_model(call["input"], call["timestep"], **call["c"]) + 10

    positive, negative = evaluate(RecordingModel(), [[cond(1)], [cond(2)]], options={"model_function_wrapper": wrapper})
    assert (positive == 11).all()
    assert (negative == 12).all()


def test_transformer_options_are_the_models_plus_what_describes_the_call():
    model = RecordingModel()
    options = {"transformer_options": {"patches": {"a": [1]}}}
    evaluate(model, [[cond(1)]], options=options, sigma=3.0)
    seen = model.calls[0]["options"]
    assert seen["patches"] == {"a": [1]}
    assert seen["sigmas"].tolist() == [3.0]
    assert options == {"transformer_options": {"patches": {"a": [1]}}}


def test_a_replaced_area_function_is_used(monkeypatch):
    original = comfy.samplers.get_area_and_mult
    monkeypatch.setattr(comfy.samplers, "get_area_and_mult", lambda *args: original(*args)._replace(input_x=args[1] + 1))
    model = RecordingModel()
    evaluate(model, [[cond(1)]])
    assert (model.calls[0]["x"] == 1).all()


def test_calc_cond_batch_wrappers_surround_the_call():
    def one_more(executor, *args):
        return [out + 1 for out in executor(*args)]

    options = {"transformer_options": {"wrappers": {"calc_cond_batch": {"key": [one_more]}}}}
    (picture,) = evaluate(RecordingModel(), [[cond(1)]], options=options)
    assert (picture == 2).all()


def test_a_wrapper_can_take_the_mixing_over_in_the_running_frame():
    class Mixed(list):
        told = "by the wrapper"

    found = []

    def wrapper(apply_model, call):
        frame = inspect.currentframe()
        while "out_conds" not in frame.f_locals:
            frame = frame.f_back
        seen = frame.f_locals
        found.append((len(seen["out_counts"]), seen["area"], [mult.unique().tolist() for mult in seen["mult"]], seen["batch_chunks"]))
        seen["out_conds"], seen["batch_chunks"] = Mixed(), 0
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(1))
        output = apply_model(call["input"], call["timestep"], **call["c"])
        output.chunk = lambda count: output
        return output

    mixed = evaluate(RecordingModel(), [[cond(1)], [cond(2, strength=0.5)]], options={"model_function_wrapper": wrapper})
    assert mixed == [] and mixed.told == "by the wrapper"
    assert found == [(2, [None, None], [[0.5], [1.0]], 2)]


def test_cond_cat_joins_by_name_and_moves_to_the_device():
    joined = cond_batches.cond_cat([cond(1)["model_conds"], cond(2)["model_conds"]], device="meta")
    assert joined["value"].shape == (2, 1)
    assert joined["value"].device.type == "meta"


def test_percentages_become_cells():
    conds = [cond(1, area=("percentage", 0.5, 0.25, 0.1, 0.5))]
    cond_regions.resolve_areas_and_cond_masks_multidim(conds, (20, 40), "cpu")
    assert conds[0]["area"] == (10, 10, 2, 20)


def test_masks_take_the_latents_size():
    given = cond(1, mask=torch.ones(64, 64))
    conds = [given]
    cond_regions.resolve_areas_and_cond_masks_multidim(conds, (8, 8), "cpu")
    assert conds[0]["mask"].shape == (1, 8, 8)
    assert given["mask"].shape == (64, 64)


def test_the_area_can_follow_the_bounds_of_the_mask():
    mask = torch.zeros(1, 32, 32)
    mask[0, 5:20, 10:12] = 1
    conds = [cond(1, mask=mask, set_area_to_bounds=True), cond(2, mask=torch.zeros(1, 32, 32), set_area_to_bounds=True)]
    cond_regions.resolve_areas_and_cond_masks_multidim(conds, (32, 32), "cpu")
    assert conds[0]["area"] == (15, 8, 5, 10)
    assert conds[1]["area"] == (8, 8, 0, 0)


def test_the_other_side_gets_a_counterpart_of_an_area():
    wide, whole = cond(1, area=(16, 16, 0, 0)), cond(2)
    conds = [whole, wide]
    cond_regions.create_cond_with_same_area_if_none(conds, cond(3, area=(8, 8, 2, 2)))
    assert conds[2]["area"] == (8, 8, 2, 2)
    assert conds[2]["model_conds"]["value"] is wide["model_conds"]["value"]
    cond_regions.create_cond_with_same_area_if_none(conds, cond(3, area=(16, 16, 0, 0)))
    assert len(conds) == 3


def test_percent_ranges_become_sigmas():
    model = SimpleNamespace(model_sampling=SimpleNamespace(percent_to_sigma=lambda percent: 10 * (1 - percent)))
    conds = [cond(1, start_percent=0.2), cond(2, clip_start_percent=0.5, clip_end_percent=0.75, start_percent=0.6), cond(3)]
    cond_preparation.calculate_start_end_timesteps(model, conds)
    assert conds[0]["timestep_start"] == 8.0
    assert "timestep_end" not in conds[0]
    assert (conds[1]["timestep_start"], conds[1]["timestep_end"]) == (4.0, 2.5)
    assert "timestep_start" not in conds[2]


def test_control_is_shared_with_sides_that_have_none():
    uncond = [cond(1), cond(2)]
    cond_preparation.apply_empty_x_to_equal_area([cond(3, control="a"), cond(4)], uncond, "control", lambda found, number: found[number])
    assert [entry.get("control") for entry in uncond] == ["a", None]
    own = [cond(1, control="own"), cond(2)]
    cond_preparation.apply_empty_x_to_equal_area([cond(3, control="a")], own, "control", lambda found, number: found[number])
    assert [entry.get("control") for entry in own] == ["own", None]


def test_models_encode_conditioning_with_sizes_in_pixels():
    def extra_conds(**given):
        assert given["noise"].shape == (1, 4, 8, 16)
        return {"y": (given["width"], given["height"], given["prompt_type"], given["seed"])}

    conds = [cond(1), cond(2, width=5, prompt_type="other")]
    cond_preparation.encode_model_conds(extra_conds, conds, torch.zeros(1, 4, 8, 16), "cpu", "negative", seed=3)
    assert conds[0]["model_conds"]["y"] == (128, 64, "negative", 3)
    assert conds[1]["model_conds"]["y"] == (5, 64, "other", 3)


def test_hooks_that_were_not_registered_are_taken_off():
    conds = {"positive": [{"hooks": "group"}]}
    cond_hooks.filter_registered_hooks_on_conds(conds, {})
    assert conds == {"positive": [{}]}
    assert cond_hooks.get_total_hook_groups_in_conds(conds) == 1
