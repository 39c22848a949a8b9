"""Running a checkout with an overlay of changed files, in a process of its own."""

import json
import subprocess
import sys

import pytest

from patchset.checkout import open_checkout
from patchset.live import HOOK, write_overlay
from patchset.series.definition import PROJECT
from patchset.trees import FileChange

MAIN = """
import sys
import part
print("{who}", __name__, __file__.endswith("ComfyUI/main.py"), sys.argv[1:], part.NAME, sys.modules["__main__"].__dict__ is globals())
raise SystemExit(3)
"""


@pytest.mark.parametrize("overlaid", [set(), {"main.py"}, {"part.py"}, {"main.py", "part.py"}], ids=lambda names: "+".join(sorted(names)))
def test_what_the_overlay_has_is_run_instead_under_the_checkouts_path(tmp_path, overlaid):
    root, overlay = tmp_path / "ComfyUI", tmp_path / "overlay"
    for folder, who in ((root, "checkout"), (overlay, "overlay")):
        folder.mkdir()
        for name, text in (("main.py", MAIN.format(who=who)), ("part.py", f"NAME = '{who}'\n")):
            if folder == root or name in overlaid:
                (folder / name).write_text(text)
    modules = {name.removesuffix(".py"): name for name in overlaid}
    (overlay / "overlay.json").write_text(json.dumps({"root": str(root), "modules": modules}))
    done = subprocess.run([sys.executable, str(HOOK), str(overlay), "--port", "1"], capture_output=True, text=True, cwd=root, check=False)
    main, part = ("overlay" if name in overlaid else "checkout" for name in ("main.py", "part.py"))
    assert done.stdout == f"{main} __main__ True ['--port', '1'] {part} True\n", done.stderr
    assert done.returncode == 3


def test_a_package_that_only_the_overlay_has_is_imported_with_its_modules(tmp_path):
    root, overlay = tmp_path / "ComfyUI", tmp_path / "overlay"
    files = {
        "brought/__init__.py": "",
        "brought/inner/__init__.py": "from brought.inner.part import NAME",
        "brought/inner/part.py": "NAME = __file__",
    }
    for name, text in files.items():
        (overlay / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay / name).write_text(text)
    root.mkdir()
    (root / "main.py").write_text("import brought.inner\nprint(brought.inner.NAME)\n")
    modules = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): name for name in files}
    (overlay / "overlay.json").write_text(json.dumps({"root": str(root), "modules": modules}))
    done = subprocess.run([sys.executable, str(HOOK), str(overlay)], capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout == f"{root / 'brought/inner/part.py'}\n", done.stderr
    assert not (root / "brought").exists()


def test_another_program_than_main_can_have_the_changes(tmp_path):
    """As benchmarks/patched_providers.py --in-memory does, which runs an executor without a server."""
    root, overlay, script = tmp_path / "ComfyUI", tmp_path / "overlay", tmp_path / "script.py"
    for folder in (root, overlay):
        folder.mkdir()
    for name in ("main.py", "part.py", "comfyui_version.py", "execution.py"):
        (root / name).write_text("NAME = 'checkout'\n__version__ = '0.33.0'\n")
    script.write_text(f"import sys\nsys.path[0] = {str(root)!r}\nimport part, execution\nprint(part.NAME, execution.NAME, *sys.argv[1:])\n")
    write_overlay(open_checkout(root), [FileChange("part.py", b"", b"NAME = 'overlay'\n"), FileChange("README.md", b"", b"# x\n")], overlay)
    command = [sys.executable, str(PROJECT / "benchmarks/patched_providers.py"), "--under", str(overlay), str(script), "word"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "overlay checkout word\n", done.stderr
    assert {path.name for path in overlay.rglob("*")} == {"part.py", "overlay.json"}
