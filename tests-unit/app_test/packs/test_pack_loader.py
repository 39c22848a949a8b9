"""Loading node packs: what counts as a pack, what it registers, and that a broken one harms nothing else."""

import asyncio
import logging
import os
import sys

import pytest

from app.packs.loader import PackLoader, PackPolicy, find_packs, log_table, pack_name, run_prestartup_scripts, sys_module_key
from app.packs.registry import PackRegistry

NODE_SOURCE = """
class {name}:
    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{"x": ("INT", {{}})}}}}
    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    def run(self, x):
        return (x,)
"""
V1_SOURCE = (
    NODE_SOURCE.format(name="Twice")
    + """
NODE_CLASS_MAPPINGS = {"Twice": Twice}
NODE_DISPLAY_NAME_MAPPINGS = {"Twice": "Two times"}
"""
)


@pytest.fixture(autouse=True)
def _keep_sys_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if os.sep in name:
            del sys.modules[name]


@pytest.fixture
def registry():
    return PackRegistry({}, {}, {}, {})


def write_pack(folder, name, source, **files):
    """Write custom_nodes/<name>/__init__.py (or <name>.py when *name* ends so) with further files by relative path."""
    target = folder / name if name.endswith(".py") else folder / name / "__init__.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source)
    for relative, text in files.items():
        path = target.parent / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder / name)


def load(registry, path, **options):
    loader = PackLoader(registry)
    loaded = asyncio.run(loader.load(path, **options))
    return loaded, loader.reports[0]


def test_v1_folder_pack_registers_classes_titles_and_module(tmp_path, registry):
    path = write_pack(tmp_path, "my.pack", V1_SOURCE)
    loaded, report = load(registry, path)
    assert loaded and report.error is None
    assert registry.node_classes["Twice"].RELATIVE_PYTHON_MODULE == "custom_nodes.my.pack"
    assert registry.display_names == {"Twice": "Two times"}
    assert registry.module_dirs == {"my.pack": path}
    assert path.replace(".", "_x_") in sys.modules


def test_single_file_pack_uses_its_path_as_module_key(tmp_path, registry):
    path = write_pack(tmp_path, "single.py", V1_SOURCE)
    loaded, _ = load(registry, path)
    assert loaded
    assert registry.node_classes["Twice"].RELATIVE_PYTHON_MODULE == "custom_nodes.single"
    assert path[:-3] in sys.modules
    assert registry.module_dirs == {path[:-3]: str(tmp_path)}


def test_relative_imports_inside_a_pack_with_dots_in_its_name(tmp_path, registry):
    path = write_pack(tmp_path, "a.b", "from .inner import NODE_CLASS_MAPPINGS", **{"inner.py": V1_SOURCE})
    assert load(registry, path)[0]
    assert set(registry.node_classes) == {"Twice"}


def test_web_directory_and_pyproject_web_are_registered(tmp_path, registry):
    project = '[project]\nname = "the-project"\n[tool.comfy]\nweb = "front"\n'
    path = write_pack(
        tmp_path, "webby", V1_SOURCE + '\nWEB_DIRECTORY = "./js"\n', **{"pyproject.toml": project, "js/a.js": "", "front/b.js": ""}
    )
    assert load(registry, path)[0]
    assert registry.web_dirs == {"webby": os.path.join(path, "js"), "the-project": os.path.join(path, "front")}


@pytest.mark.parametrize("broken", ["= broken", "a = " + "[" * 10_000])
def test_missing_web_directory_and_broken_pyproject_only_warn(tmp_path, registry, caplog, broken):
    path = write_pack(tmp_path, "webless", V1_SOURCE + '\nWEB_DIRECTORY = "nope"\n', **{"pyproject.toml": broken})
    assert load(registry, path)[0]
    assert registry.web_dirs == {}
    assert "nope" in caplog.text and "pyproject.toml" in caplog.text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("NODE_CLASS_MAPPINGS = ['Twice']", "must be a dict"),
        ("x = 1", "neither NODE_CLASS_MAPPINGS nor comfy_entrypoint"),
        ("comfy_entrypoint = 3", "must be a function"),
        ("def comfy_entrypoint(): return 4", "must return a ComfyExtension"),
        ("async def comfy_entrypoint(): raise ValueError('late')", "ValueError: late"),
    ],
)
def test_failing_pack_is_reported_with_traceback_and_rolled_back(tmp_path, registry, caplog, source, expected):
    path = write_pack(tmp_path, "bad", source)
    loaded, report = load(registry, path)
    assert not loaded
    assert expected in report.error
    assert "Traceback" in caplog.text
    assert registry.node_classes == {} and registry.module_dirs == {}
    assert sys_module_key(path) not in sys.modules


def test_a_failure_undoes_what_the_pack_wrote_into_the_tables(tmp_path, registry, monkeypatch):
    registry.node_classes["Kept"] = int
    monkeypatch.setattr("sys.pack_test_tables", registry.node_classes, raising=False)
    path = write_pack(tmp_path, "sneaky", "import sys\nsys.pack_test_tables['Half'] = int\ndel sys.pack_test_tables['Kept']\n1/0")
    assert not load(registry, path)[0]
    assert registry.node_classes == {"Kept": int}


def test_pack_without_init_file_is_reported(tmp_path, registry):
    (tmp_path / "empty").mkdir()
    loaded, report = load(registry, str(tmp_path / "empty"))
    assert not loaded and "FileNotFoundError" in report.error


def test_bad_entries_are_left_out_and_named_while_good_ones_load(tmp_path, registry):
    source = V1_SOURCE + "\nclass Bare: pass\nNODE_CLASS_MAPPINGS |= {'Bare': Bare, 'Text': 'no class', 3: Twice}\n"
    loaded, report = load(registry, write_pack(tmp_path, "mixed", source))
    assert loaded
    assert set(registry.node_classes) == {"Twice"}
    assert "INPUT_TYPES" in report.error and "'Text'" in report.error and "3" in report.error


def test_builtin_names_keep_class_and_title_but_packs_override_packs(tmp_path, registry):
    registry.node_classes.update(Twice=int, Other=int)
    registry.display_names.update(Twice="Built in")
    source = V1_SOURCE + "\nNODE_CLASS_MAPPINGS['Other'] = Twice\n"
    assert load(registry, write_pack(tmp_path, "over", source), protected={"Twice"})[0]
    assert registry.node_classes["Twice"] is int and registry.display_names["Twice"] == "Built in"
    assert registry.node_classes["Other"] is not int


def test_empty_mapping_hides_the_entrypoint(tmp_path, registry):
    path = write_pack(tmp_path, "hidden", "NODE_CLASS_MAPPINGS = {}\ndef comfy_entrypoint(): raise ValueError")
    loaded, report = load(registry, path)
    assert loaded and report.error is None


def test_find_packs_skips_disabled_caches_and_other_files(tmp_path):
    for name in ("good", "off.disabled", "__pycache__"):
        (tmp_path / name).mkdir()
    for name in ("single.py", "notes.txt", "gone.py.disabled"):
        (tmp_path / name).write_text("")
    found = find_packs([str(tmp_path), str(tmp_path / "absent")], PackPolicy())
    assert {pack_name(path) for path in found} == {"good", "single"}


def test_find_packs_with_all_disabled_keeps_the_whitelist(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    policy = PackPolicy(disable_all=True, whitelist={"two"})
    assert [pack_name(path) for path in find_packs([str(tmp_path)], policy)] == ["two"]
    assert PackPolicy(disable_all=True).allows_none() and not policy.allows_none()


def test_prestartup_scripts_run_isolated_and_only_when_allowed(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("sys.pack_test_ran", [], raising=False)
    record = "import sys\nsys.pack_test_ran.append({!r})\n"
    for name, tail in (("fine", ""), ("exits", "sys.exit(1)"), ("fails", "1/0")):
        write_pack(tmp_path, name, "raise SystemError('must not be imported')", **{"prestartup_script.py": record.format(name) + tail})
    with caplog.at_level(logging.INFO):
        reports = run_prestartup_scripts([str(tmp_path)], PackPolicy())
    assert sorted(sys.pack_test_ran) == ["exits", "fails", "fine"]
    assert {pack_name(r.module_path): r.loaded for r in reports} == {"fine": True, "exits": False, "fails": False}
    assert "PRESTARTUP FAILED" in caplog.text and "ZeroDivisionError" in caplog.text
    assert run_prestartup_scripts([str(tmp_path)], PackPolicy(disable_all=True)) == []


def test_table_names_failed_and_incomplete_packs(tmp_path, registry, caplog):
    loader = PackLoader(registry)
    for name, source in (("good", V1_SOURCE), ("bad", "1/0"), ("part", "NODE_CLASS_MAPPINGS = {'A': 1}")):
        asyncio.run(loader.load(write_pack(tmp_path, name, source)))
    with caplog.at_level(logging.INFO):
        caplog.clear()
        log_table("Import times", loader.reports)
    lines = {os.path.basename(line.split(": ")[1]): line for line in caplog.messages[1:]}
    assert "IMPORT FAILED" in lines["bad"] and "(incomplete)" in lines["part"] and "(" not in lines["good"]
