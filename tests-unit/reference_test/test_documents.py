"""Links between documents lead somewhere, and the module paths they name exist."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")
MODULE = re.compile(
    r"`((?:comfy|comfy_execution|comfy_api|comfy_extras|app|middleware|patchset|starter|utils|custom_nodes|benchmarks|tests|tests-unit|serverless)"
    r"/[\w./-]*\w(?:\.py|/))`"
)


def documents() -> list[pathlib.Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", "*.md"], capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).is_file()]


def anchors(page: pathlib.Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    broken = []
    for page in documents():
        for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" in target or target.startswith("mailto:"):
                continue
            found = page.parent / target
            if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert not broken


def test_named_modules_exist():
    """Documents for ComfyUI's side (docs/upstream) name files that exist only there."""
    pages = [page for page in documents() if page.parent.name != "upstream"]
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages
        for name in MODULE.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    ]
    assert not missing
