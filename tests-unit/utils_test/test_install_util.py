"""What the requirements ask for."""

import pytest

from utils import install_util


def test_pinned_and_minimum_versions_are_read(tmp_path, monkeypatch):
    file = tmp_path / "requirements.txt"
    file.write_text("a==1.2.3\nb>=4.5.6  # why\nc>=1.2\nd\n# e==1.0.0\nf==1.0.0.beta\n")
    monkeypatch.setattr(install_util, "requirements_path", file)
    assert install_util.get_required_packages_versions() == {"a": "1.2.3", "b": "4.5.6"}


def test_missing_file_is_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(install_util, "requirements_path", tmp_path / "none.txt")
    assert install_util.get_required_packages_versions() is None
    assert "none.txt" in caplog.text


@pytest.mark.parametrize(("text", "valid"), [("1.2.3", True), ("1.2", False), ("1.2.3.4", False), ("v1.2.3", False), ("", False)])
def test_full_versions_are_recognised(text, valid):
    assert install_util.is_valid_version(text) is valid


def test_message_names_the_command():
    assert f"-m pip install -r {install_util.requirements_path}" in install_util.get_missing_requirements_message()
