"""The tool on small checkouts of its own: all or nothing, refusals, idempotence, undoing byte for byte, running in memory.

It is tried with one series; the others have test files of their own.
"""

import dataclasses
import shutil
import subprocess
import sys

import pytest
from linear_checkout import BOTH, EXECUTION, FILES, edit, git, make, state

from patchset import compatibility, tree_files
from patchset.checkout import open_checkout
from patchset.command_line import main
from patchset.outcomes import PatchsetError
from patchset.series import SERIES


@pytest.fixture(autouse=True)
def one_series():
    """The only one meanwhile; afterwards all, in their order."""
    every = dict(SERIES)
    SERIES.clear()
    SERIES[BOTH.name] = BOTH
    yield
    SERIES.clear()
    SERIES.update(every)


@pytest.fixture
def checkout(tmp_path):
    return make(tmp_path / "ComfyUI")


@pytest.mark.parametrize("flags", [[], ["--commit"], ["--branch", "linear"], ["--branch", "linear", "--commit"]], ids=" ".join)
def test_apply_twice_and_revert_restores_every_byte(checkout, flags, capsys):
    before = state(checkout)
    assert main(["apply", str(checkout), *flags]) == 0
    applied = state(checkout)
    assert applied != before
    assert "comfy_execution/signatures.py" in applied
    assert main(["apply", str(checkout)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert state(checkout) == applied
    assert main(["revert", str(checkout)]) == 0
    assert state(checkout) == before
    assert git(checkout, "status", "--porcelain") == ""


def test_commits_carry_the_callers_name_and_the_series_message(checkout):
    main(["apply", str(checkout), "--branch", "linear"])
    assert git(checkout, "rev-parse", "--abbrev-ref", "HEAD").strip() == "linear"
    author, subject = git(checkout, "log", "-1", "--format=%an%n%s").splitlines()
    assert author == "Ada"
    assert len(subject) < 72
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize("flags", [[], ["--branch", "made"]], ids=" ".join)
def test_a_repository_without_a_commit_is_refused_and_stays_as_it_is(checkout, flags, capsys):
    shutil.rmtree(checkout / ".git")
    git(checkout, "init", "-q", "-b", "master")
    for staged in (False, True):
        if staged:
            git(checkout, "add", "-A")
        before = state(checkout)
        assert main(["apply", str(checkout), *flags]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "without a commit" in line and "first" in line
        assert main(["revert", str(checkout)]) == 0
        assert main(["update", str(checkout)]) == 1
        capsys.readouterr()
        assert state(checkout) == before and git(checkout, "symbolic-ref", "--short", "HEAD").strip() == "master"


def test_dry_run_prints_the_diff_and_changes_nothing(checkout, capsys):
    before = state(checkout)
    assert main(["apply", str(checkout), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "+@without_recursion" in printed
    assert "+++ b/comfy_execution/trampoline.py" in printed
    assert state(checkout) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("execution.py", "async def validate_inputs(prompt, item):", "async def validate_all(prompt, item):", "validate_inputs"),
        ("execution.py", "GraphBuilder, is_link", "GraphBuilder", "from comfy_execution.graph_utils import is_link"),
        ("execution.py", "\n\nasync def", "\n\nasync def validate_inputs(): pass\n\nasync def", "ambiguous"),
        ("comfy_execution/caching.py", "get_ordered_ancestry_internal", "walk_ancestors", "get_ordered_ancestry_internal"),
        (
            "comfy_execution/caching.py",
            "        self.is_changed_cache =",
            "        if True:\n            self.is_changed_cache =",
            "__init__",
        ),
        ("comfy_execution/caching.py", "list(self.get_ordered_ancestry(dynprompt, node_id))", "hash(node_id)", "get_node_signature"),
        ("comfy_execution/caching.py", "class CacheKeySetInputSignature", "class Other", "CacheKeySetInputSignature"),
    ],
    ids=["renamed", "import gone", "duplicated", "renamed helper", "moved statement", "rewritten", "class gone"],
)
def test_altered_checkouts_are_refused_with_file_and_expectation(checkout, capsys, name, old, new, told):
    edit(checkout, name, old, new)
    before = state(checkout)
    for command in ("apply", "check"):
        assert main([command, str(checkout)]) == 1
        printed = "".join(capsys.readouterr())
        assert name in printed
        assert told in printed
    assert state(checkout) == before
    assert git(checkout, "status", "--porcelain") == ""


def test_what_someone_did_by_hand_is_recognised(checkout, capsys):
    edit(checkout, "execution.py", "\n\nasync def", "\n\n@without_recursion\nasync def")
    edit(
        checkout,
        "execution.py",
        "import GraphBuilder, is_link\n",
        "import GraphBuilder, is_link\nfrom comfy_execution.trampoline import without_recursion\n",
    )
    assert main(["check", str(checkout)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["check", str(checkout), "--verbose"]) == 0
    assert "already there: execution.py: validate_inputs" in capsys.readouterr().out
    assert main(["apply", str(checkout)]) == 0
    assert (checkout / "execution.py").read_text().count("@without_recursion") == 1


def test_dirty_files_and_foreign_files_of_the_same_name_are_refused(checkout, capsys):
    (checkout / "execution.py").write_text(EXECUTION + "# mine\n")
    assert main(["apply", str(checkout)]) == 1
    assert "uncommitted changes: execution.py" in capsys.readouterr().err
    git(checkout, "checkout", "execution.py")
    (checkout / "comfy_execution" / "signatures.py").write_text("# another\n")
    assert main(["apply", str(checkout)]) == 1
    assert "signatures.py" in capsys.readouterr().err
    assert (checkout / "comfy_execution" / "signatures.py").read_text() == "# another\n"


@pytest.mark.parametrize(("version", "told"), [('__version__ = "0.19.3"\n', "0.20"), ("nothing\n", "names no version")])
def test_unsupported_versions_are_refused(checkout, capsys, version, told):
    (checkout / "comfyui_version.py").write_text(version)
    assert main(["check", str(checkout)]) == 1
    assert told in capsys.readouterr().err


def test_a_folder_without_comfyui_is_refused(tmp_path, capsys):
    assert main(["apply", str(tmp_path)]) == 1
    assert "holds no ComfyUI" in capsys.readouterr().err


def test_revert_keeps_later_changes(checkout):
    main(["apply", str(checkout)])
    (checkout / "execution.py").write_text((checkout / "execution.py").read_text() + "# mine\n")
    assert main(["revert", str(checkout)]) == 0
    assert (checkout / "execution.py").read_text() == EXECUTION + "# mine\n"
    assert git(checkout, "status", "--porcelain") == " M execution.py\n"


@pytest.mark.parametrize("name", ["execution.py", "comfy_execution/trampoline.py"])
def test_revert_does_not_overwrite_changes_of_what_it_would_undo(checkout, capsys, name):
    main(["apply", str(checkout)])
    (checkout / name).write_text((checkout / name).read_text().replace("without_recursion", "with_recursion"))
    after = state(checkout)
    assert main(["revert", str(checkout)]) == 1
    told = capsys.readouterr().err
    assert f"changed since it was applied: {name}" in told and f"git checkout -- {name}" in told
    assert state(checkout) == after


@pytest.mark.parametrize("flags", [[], ["--commit"]], ids=["plain", "commit"])
def test_an_update_in_between_is_kept(checkout, flags):
    """The tool takes its lines out of the newer file, though it never saw that."""
    main(["apply", str(checkout), *flags])
    git(checkout, "stash", "-q") if not flags else None
    edit(checkout, "execution.py", "return await validate", "# newer\n    return await validate")
    git(checkout, "stash", "pop", "-q") if not flags else None
    assert main(["revert", str(checkout)]) == 0
    assert (checkout / "execution.py").read_text() == EXECUTION.replace("return await", "# newer\n    return await")
    assert git(checkout, "status", "--porcelain") == ""


def test_folders_that_a_series_brings_go_with_it_byte_code_included(checkout):
    before, old = state(checkout), SERIES["linear-signatures"]
    package = (("patchset/outcomes.py", "comfy/brought/deep/__init__.py"), ("patchset/record.py", "comfy/brought/deep/record.py"))
    SERIES[old.name] = dataclasses.replace(old, tests=old.tests + package)
    assert main(["apply", str(checkout)]) == 0
    for name in ("comfy/brought/deep", "comfy_execution"):
        subprocess.run([sys.executable, "-m", "compileall", "-q", name], cwd=checkout, check=True)
    assert (checkout / "comfy/brought/deep/__pycache__").is_dir()
    assert main(["revert", str(checkout)]) == 0
    assert state(checkout) == before and not (checkout / "comfy").exists()
    left = {path.name.split(".")[0] for path in (checkout / "comfy_execution/__pycache__").iterdir()}
    assert left == {"caching", "graph_utils"}


def test_a_write_that_fails_midway_leaves_nothing_behind(checkout, monkeypatch, capsys):
    before = state(checkout)
    real = tree_files.write
    written = []

    def failing(root, name, content):
        written.append(name)
        if len(written) == 3 and content is not None:
            raise OSError(28, "No space left on device", name)
        real(root, name, content)

    monkeypatch.setattr(tree_files, "write", failing)
    assert main(["apply", str(checkout), "--branch", "linear"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert state(checkout) == before
    assert git(checkout, "branch", "--format=%(refname:short)").split() == ["master"]
    assert git(checkout, "status", "--porcelain") == ""


def test_a_commit_that_fails_leaves_nothing_behind(checkout, capsys):
    before = state(checkout)
    hook = checkout / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert main(["apply", str(checkout), "--commit"]) == 1
    assert state(checkout) == before
    assert git(checkout, "status", "--porcelain") == ""


def test_a_failed_commit_says_why_and_not_what_was_to_be_committed(checkout, capsys):
    hook = checkout / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no such commits here >&2\nexit 1\n")
    hook.chmod(0o755)
    assert main(["apply", str(checkout), "--commit"]) == 1
    told = capsys.readouterr().err
    assert told == f"git commit failed in {checkout}: no such commits here\n"


def test_a_folder_without_git_can_be_patched_and_restored(checkout, tmp_path):
    plain = tmp_path / "plain"
    for name, content in FILES.items():
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_text(content)
    before = state(plain)
    assert main(["apply", str(plain), "--commit"]) == 1
    assert main(["apply", str(plain)]) == 0
    assert state(plain) != before
    assert main(["revert", str(plain)]) == 0
    assert state(plain) == before


def test_checks_output_is_a_line_per_series(checkout, capsys):
    main(["check", str(checkout)])
    assert len(capsys.readouterr().out.splitlines()) == 2
    main(["check", str(checkout), "--verbose"])
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_opening_reads_the_version(checkout):
    assert open_checkout(checkout).version == (0, 30, 0)
    with pytest.raises(PatchsetError):
        open_checkout(checkout / "comfy_execution")


def test_the_compatibility_table_has_a_row_per_checkout(checkout, capsys):
    assert compatibility.main([str(checkout)]) == 0
    assert "| 0.30.0 | can be applied |" in capsys.readouterr().out
    main(["apply", str(checkout)])
    assert "| 0.30.0 | already applied |" in compatibility.table([str(checkout)])
    assert compatibility.main([str(checkout / "comfy_execution")]) == 1
