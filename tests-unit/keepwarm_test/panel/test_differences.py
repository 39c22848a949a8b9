"""Messages to the panel: what has changed and nothing else."""

from custom_nodes.keepwarm.panel.differences import MOST_ROWS, difference, steadied


def row(name, **more):
    return {"id": name, "used_at": None, **more}


def picture(*rows, **more):
    empty = {"prompt": {"id": None, "running": False, "receipts": []}, "points": [], "bars": {"ram": {"used_bytes": 0, "free_bytes": 5}}}
    return {"rows": {one["id"]: one for one in rows}, **empty, **more}


def test_no_message_is_sent_when_only_free_memory_changed():
    assert difference(picture(row("a")), picture(row("a"), bars={"ram": {"used_bytes": 0, "free_bytes": 9}})) is None


def test_only_new_changed_or_gone_rows_are_sent():
    old = picture(row("a"), row("b"), row("c"))
    new = picture(row("a"), row("b", held=True), row("d"), bars={"ram": {"used_bytes": 1, "free_bytes": 9}})
    assert difference(old, new) == {
        "rows": [row("b", held=True), row("d")],
        "gone": ["c"],
        "bars": {"ram": {"used_bytes": 1, "free_bytes": 9}},
    }


def test_a_change_of_very_many_rows_says_to_load_all():
    assert difference(picture(), picture(*(row(f"r{index}") for index in range(MOST_ROWS + 1)))) == {"all": True}
    assert len(difference(picture(), picture(*(row(f"r{index}") for index in range(MOST_ROWS))))["rows"]) == MOST_ROWS


def test_only_new_receipts_of_a_prompt_are_sent_and_all_of_another_prompt():
    old = picture(prompt={"id": "p", "running": True, "receipts": ["one"]})
    grown = picture(prompt={"id": "p", "running": True, "receipts": ["one", "two"]})
    assert difference(old, grown) == {"prompt": {"id": "p", "running": True, "receipts": ["two"], "from": 1}}
    other = picture(prompt={"id": "q", "running": True, "receipts": ["one"]})
    assert difference(old, other)["prompt"] == {"id": "q", "running": True, "receipts": ["one"], "from": 0}
    trimmed = picture(prompt={"id": "p", "running": True, "receipts": ["two"]})
    assert difference(old, trimmed)["prompt"]["from"] == 0


def test_points_are_sent_once():
    assert difference(picture(points=[{"id": "p"}]), picture(points=[{"id": "p"}, {"id": "q"}])) == {"points": [{"id": "q"}]}
    assert difference(picture(points=[{"id": "p"}]), picture()) is None


def test_times_of_use_that_differ_only_by_measuring_do_not_count_as_changed():
    old = picture(row("a", used_at=100.0), row("b", used_at=100.0))
    new = steadied(old, picture(row("a", used_at=100.4), row("b", used_at=103.0), row("c", used_at=1.0)))
    assert [one["used_at"] for one in new["rows"].values()] == [100.0, 103.0, 1.0]
    assert steadied(None, new) == new
