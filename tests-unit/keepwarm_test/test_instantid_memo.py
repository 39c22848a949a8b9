"""The memo for ComfyUI_InstantID over a pack of the same shape: what is computed once, and what anew."""

import logging
import sys
import types

import pytest
import torch

from comfy.patch_identity.content_memo import ContentMemo
from comfy.patch_identity.fingerprints import Fingerprints
from custom_nodes.keepwarm import instantid_memo
from custom_nodes.keepwarm.instantid_memo import InstantIDMemo

PACK = """
import torch

analysed, resampled = [], []


class Analyser:
    det_model = None


def extractFeatures(insightface, image, extract_kps=False):
    analysed.append(extract_kps)
    if image.sum() == 0:
        return None
    return image * 2 if extract_kps else image.sum(dim=(1, 2))


class InstantID(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.image_proj_model = torch.nn.Linear(3, 4)

    @torch.inference_mode()
    def get_image_embeds(self, clip_embed, clip_embed_zeroed):
        resampled.append(1)
        return self.image_proj_model(clip_embed), self.image_proj_model(clip_embed_zeroed)


class ApplyInstantID:
    def apply_instantid(self, instantid, insightface, image):
        found = extractFeatures(insightface, image)
        points = extractFeatures(insightface, image[:1], extract_kps=True)
        return instantid.get_image_embeds(found, torch.zeros_like(found)), points
"""


@pytest.fixture
def pack(monkeypatch):
    module = types.ModuleType("instantid_like")
    exec(PACK, module.__dict__)  # noqa: S102 (a pack's module, made anew for each test)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def apply(pack):
    """The pack's node with the memo, for an adapter made as nodes make it."""
    memo = ContentMemo(Fingerprints())
    assert InstantIDMemo(memo.remembered).install({"ApplyInstantID": pack.ApplyInstantID})
    with torch.inference_mode():
        pack.adapter, pack.analyser = pack.InstantID(), pack.Analyser()
    pack.memo = memo

    def run(image, adapter=None, analyser=None):
        with torch.inference_mode():
            return pack.ApplyInstantID().apply_instantid(adapter or pack.adapter, analyser or pack.analyser, image)

    yield run
    assert memo.check() == []


def counts(pack):
    return len(pack.analysed), len(pack.resampled)


def picture(value=0.5):
    image = torch.full((1, 4, 4, 3), 0.25)
    image[0, 1, 2, 0] = value
    return image


def test_equal_pictures_are_analysed_once(pack, apply):
    first = apply(picture())
    assert counts(pack) == (2, 1)
    for _ in range(9):
        again = apply(picture())
    assert counts(pack) == (2, 1)
    assert all(torch.equal(one, other) for one, other in zip(first[0], again[0], strict=True)) and torch.equal(first[1], again[1])
    (cond, _), points = again
    assert cond.tolist() == pack.adapter.image_proj_model(picture().sum(dim=(1, 2))).tolist() and torch.equal(points, picture() * 2)


def test_one_changed_value_is_computed_anew(pack, apply):
    apply(picture())
    apply(picture(0.5 + 2**-20))
    assert counts(pack) == (4, 2)
    apply(picture())
    assert counts(pack) == (4, 2)


def test_what_the_pack_changes_does_not_reach_the_next_call(pack, apply):
    (cond, uncond), points = apply(picture())
    expected = cond.clone()
    with torch.inference_mode():
        for tensor in (cond, uncond, points):
            tensor.zero_()
    (again, _), points = apply(picture())
    assert torch.equal(again, expected) and points.any() and counts(pack) == (2, 1)


def test_no_face_is_remembered_as_well(pack, apply):
    extract = pack.extractFeatures
    assert extract(pack.analyser, torch.zeros(1, 4, 4, 3)) is None
    assert extract(pack.analyser, torch.zeros(1, 4, 4, 3)) is None
    assert len(pack.analysed) == 1


def test_another_adapter_precision_or_analyser_is_computed_anew(pack, apply):
    apply(picture())
    apply(picture(), adapter=pack.InstantID())
    assert counts(pack) == (2, 2)
    with torch.inference_mode():
        pack.adapter.to(torch.float64)
    with pytest.raises(RuntimeError):  # the pack's own error, each time
        apply(picture())
    with pytest.raises(RuntimeError):
        apply(picture())
    with torch.inference_mode():
        pack.adapter.to(torch.float32)
    apply(picture(), analyser=pack.Analyser())
    assert len(pack.analysed) == 4


def test_an_analyser_that_names_its_files_counts_by_them(pack, apply, tmp_path):
    file = tmp_path / "detector.onnx"

    def analyser():
        made = pack.Analyser()
        made.models = {"detection": types.SimpleNamespace(model_file=str(file))}
        made.det_model = types.SimpleNamespace(det_thresh=0.5)
        return made

    file.write_bytes(b"one")
    apply(picture(), analyser=analyser())
    apply(picture(), analyser=analyser())
    assert len(pack.analysed) == 2
    file.write_bytes(b"another")
    apply(picture(), analyser=analyser())
    assert len(pack.analysed) == 4
    lower = analyser()
    lower.det_model.det_thresh = 0.2
    apply(picture(), analyser=lower)
    assert len(pack.analysed) == 6


def test_weights_changed_where_torch_counts_it_are_seen(pack, apply):
    adapter = pack.InstantID().requires_grad_(False)
    before = apply(picture(), adapter=adapter)
    with torch.no_grad():
        adapter.image_proj_model.weight += 1
    after = apply(picture(), adapter=adapter)
    assert not torch.equal(before[0][0], after[0][0])


def test_it_is_put_on_once(pack, apply):
    wrapped = pack.extractFeatures
    memo = InstantIDMemo(pack.memo.remembered)
    assert not memo.install({}) and pack.extractFeatures is wrapped
    assert memo.install({"ApplyInstantID": pack.ApplyInstantID}) and memo.install({"ApplyInstantID": pack.ApplyInstantID})
    assert pack.extractFeatures.__wrapped__ is wrapped


def test_a_node_that_somebody_else_wrapped_is_no_hindrance(pack):
    original, wrapped = pack.extractFeatures, pack.ApplyInstantID.apply_instantid
    pack.ApplyInstantID.apply_instantid = lambda *arguments: wrapped(*arguments)
    assert InstantIDMemo(lambda params, call: call()).install({"ApplyInstantID": pack.ApplyInstantID})
    assert pack.extractFeatures.__wrapped__ is original


def test_a_version_without_these_functions_is_left_alone(pack, caplog):
    del pack.extractFeatures
    with caplog.at_level(logging.WARNING):
        assert not InstantIDMemo(lambda params, call: call()).install({"ApplyInstantID": pack.ApplyInstantID})
    assert "has no effect" in caplog.text and not hasattr(pack.InstantID.get_image_embeds, "__func__")


def test_nothing_happens_unless_asked_for():
    assert instantid_memo.install({}) is None
    assert instantid_memo.install({instantid_memo.ENVIRONMENT: "0"}) is None


def test_it_waits_for_the_first_prompt(pack, monkeypatch):
    import nodes
    import server

    handlers = []
    monkeypatch.setattr(server.PromptServer, "instance", types.SimpleNamespace(add_on_prompt_handler=handlers.append), raising=False)
    original = pack.extractFeatures
    assert instantid_memo.install({instantid_memo.ENVIRONMENT: "1"}) is not None
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "ApplyInstantID", pack.ApplyInstantID)
    assert handlers[0]({"prompt": {}}) == {"prompt": {}}
    assert pack.extractFeatures.__wrapped__ is original


def test_a_server_that_remembers_nothing_is_said(monkeypatch, caplog):
    monkeypatch.setattr(instantid_memo, "ComfyAPISync", lambda: types.SimpleNamespace())
    with caplog.at_level(logging.WARNING):
        assert instantid_memo.install({instantid_memo.ENVIRONMENT: "1"}) is None
    assert "has no effect" in caplog.text
