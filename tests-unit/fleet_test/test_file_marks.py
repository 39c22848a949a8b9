"""Names of files that say which server they are on."""

import pytest

from fleet.gateway.file_marks import mark, marked_outputs, named_file, texts_in, unmark


@pytest.mark.parametrize("server_id", ["s1", "gw#replica#4f", "a b", "ä/.."])
@pytest.mark.parametrize("subfolder", ["", "deep/er", "@s9/x"])
def test_a_mark_is_read_back(server_id, subfolder):
    marked = mark(server_id, subfolder)
    assert unmark(marked) == (server_id, subfolder)
    assert "/" not in marked.removesuffix(subfolder).rstrip("/")


@pytest.mark.parametrize("subfolder", ["", "portraits", "a@b/c", "@", "@/x"])
def test_a_plain_folder_has_no_mark(subfolder):
    assert unmark(subfolder) == (None, subfolder)


def test_every_file_in_outputs_is_marked_and_nothing_else():
    outputs = {
        "9": {
            "images": [{"filename": "x.png", "subfolder": "deep", "type": "output"}, {"filename": "y.png", "type": "temp"}],
            "animated": [True],
            "text": ["x.png"],
            "result": ["3d/thing.glb", None],
            "other": {"filename": "no.png", "type": "elsewhere"},
        },
        "10": None,
    }
    marked = marked_outputs(outputs, "s1")
    assert marked["9"]["images"] == [
        {"filename": "x.png", "subfolder": "@s1/deep", "type": "output"},
        {"filename": "y.png", "subfolder": "@s1", "type": "temp"},
    ]
    assert marked["9"]["result"] == ["@s1/3d/thing.glb", None]
    assert marked["9"]["text"] == ["x.png"] and marked["9"]["other"] == outputs["9"]["other"] and marked["10"] is None
    assert outputs["9"]["images"][0]["subfolder"] == "deep"


def test_what_the_texts_of_inputs_name():
    assert named_file("sub/x.png [output]") == ("sub/x.png", "output")
    assert named_file("x.png") == ("x.png", "input")
    assert named_file("x [mine].png") == ("x [mine].png", "input")
    workflow = {"1": {"inputs": {"image": "a", "list": ["b", {"c": "d"}], "number": 1}}, "2": None, "3": {"class_type": "e"}}
    assert sorted(texts_in(workflow)) == ["a", "b", "d"]
