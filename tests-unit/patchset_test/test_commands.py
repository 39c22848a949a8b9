"""The tool on small checkouts of its own: all or nothing, refusals, idempotence, undoing byte for byte, running in memory.

It is tried with one series; the others have test files of their own.
"""

import dataclasses
import hashlib
import pathlib
import subprocess
import sys

import pytest

from patchset import compatibility, tree_files
from patchset.__main__ import main
from patchset.checkout import open_checkout
from patchset.outcomes import PatchsetError
from patchset.series import SERIES

# The places that the series anchors on, in files that only have these places.
CACHING = """import itertools

from comfy_execution.graph_utils import is_link
import nodes


class CacheKeySetInputSignature:
    def __init__(self, dynprompt, node_ids, is_changed_cache):
        self.dynprompt = dynprompt
        self.is_changed_cache = is_changed_cache

    def include_node_id_in_input(self):
        return False

    # how a node is told from others
    async def get_node_signature(self, dynprompt, node_id):
        return list(self.get_ordered_ancestry(dynprompt, node_id))

    async def get_immediate_node_signature(self, dynprompt, node_id):
        return include_unique_id_in_input(node_id)

    def get_ordered_ancestry(self, dynprompt, node_id):
        return self.get_ordered_ancestry_internal(dynprompt, node_id)

    def get_ordered_ancestry_internal(self, dynprompt, node_id):
        return self.get_ordered_ancestry_internal(dynprompt, node_id)
"""
EXECUTION = """from comfy_execution.graph_utils import GraphBuilder, is_link


async def validate_inputs(prompt, item):
    return await validate_inputs(prompt, item)
"""
MAIN = """import sys
import comfy_execution.caching
print('argv', sys.argv[1:], 'signatures' in str(vars(comfy_execution.caching)))
"""
FILES = {
    "comfyui_version.py": '__version__ = "0.30.0"\n',
    "execution.py": EXECUTION,
    "comfy_execution/caching.py": CACHING,
    "comfy_execution/graph_utils.py": "GraphBuilder = is_link = None\n",
    "nodes.py": "",
    "main.py": MAIN,
}


@pytest.fixture(autouse=True)
def one_series(monkeypatch):
    for name in SERIES.keys() - {"linear-signatures"}:
        monkeypatch.delitem(SERIES, name)


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "ComfyUI"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode())
    git(root, "init", "-q", "-b", "master")
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    return root


def git(root, *arguments):
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def state(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.parts and "__pycache__" not in path.parts
    }


def edit(root, name, old, new):
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))
    git(root, "commit", "-q", "-am", "edited")


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
    printed = capsys.readouterr().out
    assert "already there: execution.py: validate_inputs" in printed
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


@pytest.mark.parametrize(("version", "told"), [('__version__ = "0.20.3"\n', "0.21"), ("nothing\n", "names no version")])
def test_unsupported_versions_are_refused(checkout, capsys, version, told):
    (checkout / "comfyui_version.py").write_text(version)
    assert main(["check", str(checkout)]) == 1
    assert told in capsys.readouterr().err


def test_a_folder_without_comfyui_is_refused(tmp_path, capsys):
    assert main(["apply", str(tmp_path)]) == 1
    assert "holds no ComfyUI" in capsys.readouterr().err


def test_revert_does_not_overwrite_later_changes(checkout, capsys):
    main(["apply", str(checkout)])
    (checkout / "execution.py").write_text((checkout / "execution.py").read_text() + "# mine\n")
    after = state(checkout)
    assert main(["revert", str(checkout)]) == 1
    assert "changed since it was applied: execution.py" in capsys.readouterr().err
    assert state(checkout) == after


def test_folders_that_a_series_brings_go_with_it_byte_code_included(checkout, monkeypatch):
    before, old = state(checkout), SERIES["linear-signatures"]
    package = (("patchset/outcomes.py", "comfy/brought/deep/__init__.py"), ("patchset/record.py", "comfy/brought/deep/record.py"))
    monkeypatch.setitem(SERIES, old.name, dataclasses.replace(old, tests=old.tests + package))
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


def test_run_starts_the_untouched_checkout_with_the_changes_in_memory(checkout):
    before = state(checkout)
    command = [sys.executable, "-m", "patchset", "run", str(checkout), "--series", "linear-signatures", "--python", sys.executable]
    project = pathlib.Path(__file__).parents[2]
    done = subprocess.run([*command, "--", "--port", "1"], capture_output=True, text=True, cwd=project, check=False)
    assert done.stdout.strip() == "argv ['--port', '1'] True", done.stderr
    assert state(checkout) == before


def test_run_hands_a_request_to_end_on_to_the_server(checkout):
    (checkout / "main.py").write_text(
        "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(7))\nprint('ready', flush=True)\nsignal.pause()\n"
    )
    git(checkout, "commit", "-q", "-am", "a server that waits")
    process = subprocess.Popen(
        [sys.executable, "-m", "patchset", "run", str(checkout), "--series", "linear-signatures"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(30) == 7
    process.stdout.close()


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
