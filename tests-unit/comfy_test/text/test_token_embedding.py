"""Chunks of tokens as vectors and masks."""

import pytest
import torch

from comfy.text.token_embedding import embed_tokens

WIDTH, END, PAD = 4, 1, 0


class Model:
    """Each id's vector holds the id."""

    def get_input_embeddings(self):
        return lambda ids, out_dtype: ids[..., None].expand(*ids.shape, WIDTH).to(out_dtype)


class SeeingModel(Model):
    """Takes pictures as well."""

    def preprocess_embed(self, embed, device):
        return embed["data"], "grid"


def embedded(*chunks, special=None, model=None):
    embeds, mask, counts, infos = embed_tokens(model or Model(), special or {"end": END, "pad": PAD}, list(chunks), torch.device("cpu"))
    return embeds[..., 0].tolist(), mask.tolist(), counts, infos


def test_the_mask_ends_with_the_end_token():
    ids, mask, counts, infos = embedded([7, 8, END, PAD, PAD], [9, END, PAD, PAD, PAD])
    assert ids == [[7, 8, END, PAD, PAD], [9, END, PAD, PAD, PAD]] and infos == []
    assert mask == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]] and counts == [3, 2]


def test_without_an_end_token_the_mask_ends_before_padding():
    assert embedded([7, 8, PAD, PAD], special={"pad": PAD})[1] == [[1, 1, 0, 0]]


@pytest.mark.parametrize("special", [{"pad": PAD}, {"end": END, "pad": PAD}])
def test_padding_on_the_left_is_masked(special):
    assert embedded([PAD, PAD, 7, 8], special=special)[1] == [[0, 0, 1, 1]]


def test_vectors_take_their_places():
    vectors = torch.full((2, WIDTH), 5.0)
    ids, mask, counts, infos = embedded([7, vectors, 8, torch.full((WIDTH,), 6.0), END, PAD])
    assert ids == [[7, 5, 5, 8, 6, END, PAD]] and mask == [[1, 1, 1, 1, 1, 1, 0]] and counts == [6]
    assert [(info["index"], info["size"]) for info in infos] == [(1, 2), (4, 1)]


def test_vectors_of_another_width_are_left_out_and_said(caplog):
    ids, mask, _, infos = embedded([7, torch.ones(1, WIDTH + 1), 8, torch.full((1, WIDTH), 5.0), END])
    assert ids == [[7, 8, 5, END, PAD]] and mask == [[1, 1, 1, 1, 0]] and len(infos) == 1
    assert "width 5 does not fit a text model of width 4" in caplog.text


def test_pictures_need_a_model_that_sees():
    picture = {"type": "image", "data": torch.full((3, WIDTH), 5.0)}
    ids, _, _, infos = embedded([7, picture, END], model=SeeingModel())
    assert ids == [[7, 5, 5, 5, END]] and infos == [{"type": "image", "index": 1, "size": 3, "extra": "grid"}]
    assert embedded([7, {"type": "image", "data": None}, END], model=SeeingModel())[0] == [[7, END]]
    with pytest.raises(ValueError, match="takes no image"):
        embedded([7, picture, END])
