"""``--run``: one workflow without serving."""

import json
import subprocess
import sys

import pytest
from live_server import ROOT


def run(tmp_path, workflow, *flags):
    (tmp_path / "input").mkdir(exist_ok=True)
    (tmp_path / "input" / "example.png").write_bytes((ROOT / "input" / "example.png").read_bytes())
    command = [sys.executable, "main.py", "--cpu", "--base-directory", str(tmp_path), "--run", str(workflow), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_it_prints_where_the_result_is_and_what_each_node_cost(tmp_path):
    done = run(tmp_path, ROOT / "examples" / "image_scale_invert.json", "--repeat", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    saved = list((tmp_path / "output").glob("*.png"))
    assert len(saved) == 1
    assert str(saved[0]) in done.stdout
    assert "ImageScale #2" in done.stdout
    assert "4 nodes were answered from the cache" in done.stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "neither a saved workflow"),
        ('{"1": {"class_type": "Nowhere", "inputs": {}}}', "Nowhere"),
        (
            json.dumps(
                {
                    "1": {"class_type": "LoadImage", "inputs": {"image": "missing.png"}},
                    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
                }
            ),
            "missing.png",
        ),
    ],
    ids=["no json", "deep json", "no workflow", "unknown node", "missing file"],
)
def test_errors_are_printed_and_the_status_is_not_zero(tmp_path, content, told):
    workflow = tmp_path / "workflow.json"
    workflow.write_text(content)
    done = run(tmp_path, workflow)
    assert done.returncode == 1
    assert told in done.stdout.replace("\n", " ")
    assert "Traceback" not in done.stdout + done.stderr


def test_a_missing_file_is_reported(tmp_path):
    done = run(tmp_path, tmp_path / "none.json")
    assert done.returncode == 1
    assert "cannot be read" in done.stdout
