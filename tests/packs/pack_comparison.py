"""What node packs give here against what they give on an upstream ComfyUI, and the table of it in the documents.

    KEEPWARM_NODE_PACKS=…/packs KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python \
        python tests/packs/pack_comparison.py

runs every case and writes the table into ``docs/reference/compatibility.md``. ``KEEPWARM_NODE_PACKS`` is a folder of packs, each in a
folder of its published name. Both servers inherit ``PYTHONPATH``, which may lead to what packs need.
"""

import dataclasses
import os
import pathlib
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

sys.path.append(str(pathlib.Path(__file__).parents[1]))  # when it is run as a program

import live_server  # noqa: E402
import pack_models  # noqa: E402
from live_server import ROOT, LiveServer  # noqa: E402
from pack_cases import CASES  # noqa: E402
from pack_cases.case_graphs import filled  # noqa: E402
from pack_cases.case_results import differences, far, mean_levels, outcome  # noqa: E402

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
FOLDER = os.environ.get("KEEPWARM_NODE_PACKS")
DOCUMENT = ROOT / "docs" / "reference" / "compatibility.md"
BEGIN, END = "<!-- pack numbers: begin -->", "<!-- pack numbers: end -->"

APART = (("",), ("ComfyUI_smZNodes",), ("sd-perturbed-attention", "ComfyUI-GGUF", "ComfyUI_IPAdapter_plus"))
PATCHING = (
    "ComfyUI-Advanced-ControlNet",
    "ComfyUI-AnimateDiff-Evolved",
    "ComfyUI-Inspire-Pack",
    "comfyui-prompt-control",
    "ComfyUI-TiledDiffusion",
    "RES4LYF",
    "efficiency-nodes-comfyui",
    "ComfyUI-Easy-Use",
    "ComfyUI_LayerStyle",
)
NEEDED = {"ComfyUI-Inspire-Pack": ("ComfyUI-Impact-Pack",)}
_TAKEN = {pack for group in (*APART, PATCHING) for pack in group}
GROUPS = (*APART, PATCHING, tuple(pack for pack in CASES if pack not in _TAKEN))  # packs that run in one pair of servers


@dataclasses.dataclass(frozen=True, slots=True)
class CaseResult:
    """One case: how far the results are apart, or what failed here; ``upstream`` is what failed there, which makes the case none."""

    pack: str
    case: str
    upstream: str = ""
    apart: list[float] | str = dataclasses.field(default_factory=list)
    equal: bool = False
    levels: tuple[float, ...] = ()  # mean differences of pictures, of 255

    def line(self) -> str:
        """The result in one line."""
        told = f"upstream: {self.upstream}" if self.upstream else f"{'equal' if self.equal else 'NOT EQUAL'} {self.apart}"
        pictures = f"; mean of pictures {[round(level, 4) for level in self.levels]} of 255" if self.levels else ""
        return f"{self.pack or 'no pack'}: {self.case}: {told}{pictures}"


def servers(group: tuple[str, ...], models: pathlib.Path, folder: pathlib.Path) -> tuple[LiveServer, LiveServer]:
    """This server and upstream's, started in *folder* with those packs of *group* that are there, and the folder *models*."""
    assert FOLDER and CHECKOUT and PYTHON
    live_server.START_TIMEOUT_S = 600  # packs may import much
    packs = {needed for pack in group for needed in (pack, *NEEDED.get(pack, ())) if needed and (pathlib.Path(FOLDER) / needed).is_dir()}

    def start(name: str) -> LiveServer:
        base = folder / name
        pack_models.write_pack(base)
        (base / "models").symlink_to(models)
        for pack in sorted(packs):
            (base / "custom_nodes" / pack).symlink_to(pathlib.Path(FOLDER) / pack)
        if name == "here":
            return LiveServer(base, cold=True)
        return LiveServer(base, root=pathlib.Path(CHECKOUT), python=PYTHON, cold=True)

    with ThreadPoolExecutor(2) as pool:
        here, upstream = pool.map(start, ("here", "upstream"))
    return here, upstream


def compared(group: tuple[str, ...], here: LiveServer, upstream: LiveServer, wanted: str = "") -> Iterator[CaseResult]:
    """Run the cases of *group*, of packs that are there, on both servers; only those with *wanted* in their names."""
    described = upstream.get("/object_info")
    with ThreadPoolExecutor(2) as pool:
        for pack in group:
            if pack and not (here.base / "custom_nodes" / pack).is_dir():
                continue
            for case, prompt in CASES[pack].items():
                if wanted in f"{pack}: {case}":
                    whole = filled(prompt, described)
                    found, expected = pool.map(lambda server, prompt=whole: outcome(server, prompt), (here, upstream))
                    if isinstance(expected, str):
                        yield CaseResult(pack, case, expected)
                    else:
                        levels = tuple(mean_levels(found, expected))
                        yield CaseResult(pack, case, "", differences(found, expected), not far(found, expected), levels)


def table(results: list[CaseResult]) -> str:
    """The part of the document between its marks."""
    by_pack: dict[str, list[CaseResult]] = defaultdict(list)
    for result in results:
        by_pack[result.pack].append(result)
    counted = [result for result in results if not result.upstream]
    lines = [f"{sum(result.equal for result in counted)} of {len(counted)} cases that upstream runs give its numbers.", ""]
    lines += ["| Pack | Equal | Cases | Not equal |", "| --- | --- | --- | --- |"]
    for pack, own in sorted(by_pack.items(), key=lambda item: item[0].lower()):
        cases = [result for result in own if not result.upstream]
        different = "; ".join(result.case for result in cases if not result.equal)
        counts = f"{sum(result.equal for result in cases)} | {len(cases)}"
        lines.append(f"| {pack or 'no pack'} | {counts} | {different or '-'} |")
    return "\n".join(lines) + "\n"


def written_table(text: str) -> str:
    """What a document holds between the marks. Raises ``ValueError`` without them."""
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() + "\n"


def with_table(text: str, new: str) -> str:
    """The document with *new* between the marks. Raises ``ValueError`` without them."""
    return text[: text.index(BEGIN) + len(BEGIN)] + "\n\n" + new + "\n" + text[text.index(END) :]


def main() -> None:
    """Run every case and write the table."""
    if not (CHECKOUT and PYTHON and FOLDER):
        raise SystemExit("set KEEPWARM_NODE_PACKS, KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON")
    results = []
    with tempfile.TemporaryDirectory(prefix="keepwarm-packs-") as folder:
        models = pathlib.Path(folder) / "models"
        pack_models.write_models(models)
        for number, group in enumerate(GROUPS):
            here, upstream = servers(group, models, pathlib.Path(folder) / str(number))
            try:
                for result in compared(group, here, upstream):
                    results.append(result)
                    print(result.line(), flush=True)
            finally:
                here.stop()
                upstream.stop()
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), table(results)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
