import pytest
import torch

import nodes
from comfy_extras import core_conditioning


def entry(value=1.0, tokens=3, pooled=None, **options):
    return [torch.full((1, tokens, 4), value), {**({} if pooled is None else {"pooled_output": torch.full((1, 2), pooled)}), **options}]


class Clip:
    def __init__(self):
        self.layer = None

    def clone(self):
        return Clip()

    def clip_layer(self, index):
        self.layer = index

    def tokenize(self, text):
        return ["tokens of", text]

    def encode_from_tokens_scheduled(self, tokens):
        return [[tokens, {}]]


def test_text_is_tokenized_and_encoded():
    assert nodes.CLIPTextEncode().encode(Clip(), "a cat") == ([[["tokens of", "a cat"], {}]],)
    with pytest.raises(RuntimeError, match="no text encoder.*CLIP loader"):
        nodes.CLIPTextEncode().encode(None, "a cat")


def test_clip_skip_is_set_on_a_clone():
    clip = Clip()
    (changed,) = nodes.CLIPSetLastLayer().set_last_layer(clip, -2)
    assert (clip.layer, changed.layer) == (None, -2)


def test_combine_lists_both():
    first, second = entry(), entry()
    assert nodes.ConditioningCombine().combine([first], [second]) == ([first, second],)


def test_average_mixes_tokens_and_pooled_vectors():
    to, other = entry(1.0, 3, pooled=4.0, kept=1), entry(3.0, 2, pooled=8.0)
    ((mixed, options),) = nodes.ConditioningAverage().addWeighted([to], [other], 0.75)[0]
    assert mixed[0, :, 0].tolist() == [1.5, 1.5, 0.75]
    assert options["pooled_output"].tolist() == [[5.0, 5.0]]
    assert options["kept"] == 1
    assert to[1]["pooled_output"].tolist() == [[4.0, 4.0]]


@pytest.mark.parametrize(("to", "other", "expected"), [(4.0, None, 4.0), (None, 8.0, 8.0), (None, None, None)])
def test_average_takes_the_pooled_vector_that_there_is(to, other, expected):
    ((_, options),) = nodes.ConditioningAverage().addWeighted([entry(pooled=to)], [entry(pooled=other)], 0.75)[0]
    pooled = options.get("pooled_output")
    assert (None if pooled is None else pooled[0, 0].item()) == expected


def test_average_and_concat_say_that_they_use_one_entry(caplog):
    nodes.ConditioningAverage().addWeighted([entry()], [entry(), entry()], 0.5)
    nodes.ConditioningConcat().concat([entry()], [entry(), entry()])
    assert [record.message for record in caplog.records] == [
        f"{node}: conditioning_from has 2 entries; only the first one is used" for node in ("ConditioningAverage", "ConditioningConcat")
    ]


def test_concat_appends_tokens():
    ((joined, options),) = nodes.ConditioningConcat().concat([entry(1.0, 3, kept=1)], [entry(2.0, 2)])[0]
    assert joined[0, :, 0].tolist() == [1, 1, 1, 2, 2]
    assert options == {"kept": 1}


def test_areas_are_sizes_then_offsets():
    ((_, options),) = nodes.ConditioningSetArea().append([entry()], 128, 64, 16, 8, 0.5)[0]
    assert (options["area"], options["strength"], options["set_area_to_bounds"]) == ((8, 16, 1, 2), 0.5, False)
    ((_, options),) = nodes.ConditioningSetAreaPercentage().append([entry()], 0.5, 0.25, 0.1, 0.2, 1.0)[0]
    assert options["area"] == ("percentage", 0.25, 0.5, 0.2, 0.1)
    ((_, options),) = nodes.ConditioningSetAreaStrength().append([entry()], 2.0)[0]
    assert options == {"strength": 2.0}


@pytest.mark.parametrize(("choice", "to_bounds"), [("default", False), ("mask bounds", True)])
def test_masks_get_a_batch_dimension(choice, to_bounds):
    ((_, options),) = nodes.ConditioningSetMask().append([entry()], torch.ones(4, 4), choice, 0.5)[0]
    assert options["mask"].shape == (1, 4, 4)
    assert (options["mask_strength"], options["set_area_to_bounds"]) == (0.5, to_bounds)


def test_zero_out_keeps_other_options():
    ((context, options),) = nodes.ConditioningZeroOut().zero_out([entry(2.0, pooled=3.0, kept=1)])[0]
    assert not context.any()
    assert not options["pooled_output"].any()
    assert options["kept"] == 1


def test_ranges_are_shares():
    ((_, options),) = nodes.ConditioningSetTimestepRange().set_range([entry()], 0.25, 0.75)[0]
    assert options == {"start_percent": 0.25, "end_percent": 0.75}


def test_all_nodes_are_core_nodes():
    assert set(core_conditioning.NODE_CLASS_MAPPINGS) <= set(nodes.NODE_CLASS_MAPPINGS)
