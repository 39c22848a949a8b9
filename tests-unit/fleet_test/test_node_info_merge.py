"""Descriptions of nodes of several servers as one."""

from fleet.gateway.node_info_merge import merged


def loader(*names, **options):
    return {"input": {"required": {"name": [list(names), options], "strength": ["FLOAT", {"default": 1.0}]}}, "output": ["MODEL"]}


def combo(*names, **options):
    return {"input": {"required": {"image": ["COMBO", {"options": list(names), **options}]}}}


def test_every_node_with_the_choices_of_all():
    one, two = {"Loader": loader("a", "b"), "Mine": loader()}, {"Loader": loader("b", "c"), "Yours": loader("x")}
    joined = merged([one, two], {})
    assert joined["Loader"]["input"]["required"] == {"name": [["a", "b", "c"], {}], "strength": ["FLOAT", {"default": 1.0}]}
    assert set(joined) == {"Loader", "Mine", "Yours"}
    assert one["Loader"] == loader("a", "b"), "what was given stays as it was"


def test_the_newer_form_of_choices():
    joined = merged([{"Load": combo("a")}, {"Load": combo("b")}], {})
    assert joined["Load"]["input"]["required"]["image"] == ["COMBO", {"options": ["a", "b"]}]


def test_uploads_are_offered_where_they_can_be_made():
    joined = merged([{"Load": combo("a", image_upload=True), "Other": combo("a")}], {"image": ["u.png", "a"]})
    assert joined["Load"]["input"]["required"]["image"][1]["options"] == ["a", "u.png"]
    assert joined["Other"] == combo("a")


def test_odd_descriptions_stay_as_the_first_server_gives_them():
    for odd in (None, [], {"input": None}, {"input": {"required": None}}, {"input": {"required": {"x": [], "y": None, "z": ["COMBO"]}}}):
        assert merged([{"Odd": odd}, {"Odd": loader("a")}, {"Odd": odd}], {"image": ["u"]}) == {"Odd": odd}


def test_many_choices_are_joined_quickly():
    names = [f"model-{number}" for number in range(5000)]
    joined = merged([{"L": loader(*names)}, {"L": loader(*reversed(names), "last")}], {})
    assert joined["L"]["input"]["required"]["name"][0] == [*names, "last"]
