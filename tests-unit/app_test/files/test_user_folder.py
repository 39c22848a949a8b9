"""A user's folder is complete from the start and never overwritten."""

from app.files.user_folder import prepare_user_folder


def test_a_new_folder_holds_what_the_page_asks_for(tmp_path):
    prepare_user_folder(str(tmp_path / "default"))
    assert sorted(path.name for path in (tmp_path / "default").iterdir()) == ["comfy.templates.json", "subgraphs", "user.css", "workflows"]
    assert (tmp_path / "default" / "comfy.templates.json").read_text() == "[]"


def test_existing_files_stay(tmp_path):
    (tmp_path / "user.css").write_text("body {}")
    prepare_user_folder(str(tmp_path))
    prepare_user_folder(str(tmp_path))
    assert (tmp_path / "user.css").read_text() == "body {}"
