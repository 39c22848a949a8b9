import sys
from types import SimpleNamespace

import torch

import folder_paths
import nodes
from comfy.control.base import ControlBase
from comfy_extras.nodes_nop import wanBlockSwap
from comfy_extras.nodes_sd3 import ControlNetApplySD3


class Control(ControlBase):
    def copy(self):
        twin = Control()
        self.copy_to(twin)
        return twin


def entry(**options):
    return [torch.zeros(1, 1, 1), options]


IMAGE = torch.rand(1, 16, 8, 3)


def test_apply_chains_a_copy_behind_what_was_there():
    original, before = Control(), Control()
    (conditioning,) = nodes.ControlNetApply().apply_controlnet([entry(control=before), entry()], original, IMAGE, 0.5)
    first, second = (options["control"] for _, options in conditioning)
    assert first.previous_controlnet is before
    assert second.previous_controlnet is None
    assert first is not second is not original
    assert first.cond_hint_original.shape == (1, 3, 16, 8)
    assert first.strength == 0.5
    assert conditioning[0][1]["control_apply_to_uncond"]


def test_apply_to_both_sides_shares_controls_with_the_same_chain():
    before = Control()
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        [entry(), entry(control=before)], [entry()], Control(), IMAGE, 0.5, 0.1, 0.9
    )
    assert positive[0][1]["control"] is negative[0][1]["control"]
    assert positive[1][1]["control"].previous_controlnet is before
    assert positive[0][1]["control"].timestep_percent_range == (0.1, 0.9)
    assert not negative[0][1]["control_apply_to_uncond"]


def test_applying_copies_no_picture_and_leaves_the_original_alone():
    """So there is nothing to remember: to compare the picture with an earlier one would take longer than to apply it."""
    image = torch.rand(2, 64, 64, 3)
    original = Control()
    controls = [
        nodes.ControlNetApply().apply_controlnet([entry()], original, image, 0.5)[0][0][1]["control"],
        nodes.ControlNetApplyAdvanced().apply_controlnet([entry()], [entry()], original, image, 0.5, 0.0, 1.0)[1][0][1]["control"],
    ]
    assert all(control.cond_hint_original.data_ptr() == image.data_ptr() for control in controls)
    assert original.cond_hint_original is None


def test_the_node_of_saved_workflows_that_takes_an_autoencoder_does_the_same():
    vae, side, of_latents = SimpleNamespace(), [entry()], Control()
    of_latents.latent_format = SimpleNamespace()
    positive, negative = ControlNetApplySD3.execute(side, [entry()], of_latents, IMAGE, 0.5, 0.1, 0.9, vae=vae).args
    control = positive[0][1]["control"]
    assert control is negative[0][1]["control"] and control.vae is vae and control.timestep_percent_range == (0.1, 0.9)
    assert ControlNetApplySD3.execute(side, side, Control(), IMAGE, 0, 0.0, 1.0, vae).args == (side, side)


def test_blocks_are_not_swapped_by_a_node():
    model = object()
    assert wanBlockSwap.execute(model).args == (model,)


def test_no_strength_changes_nothing():
    side = [entry()]
    assert nodes.ControlNetApply().apply_controlnet(side, Control(), IMAGE, 0) == (side,)
    assert nodes.ControlNetApplyAdvanced().apply_controlnet(side, side, Control(), IMAGE, 0, 0.0, 1.0) == (side, side)


def test_loaders_pass_path_and_model(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy.controlnet", SimpleNamespace(load_controlnet=lambda *arguments: arguments))
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: f"{folder}/{name}")
    assert nodes.ControlNetLoader().load_controlnet("a") == (("controlnet/a",),)
    assert nodes.DiffControlNetLoader().load_controlnet("model", "a") == (("controlnet/a", "model"),)
