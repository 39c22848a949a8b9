"""Public node packs, unmodified: what the documents say about them holds. Run with a folder of packs in ``KEEPWARM_PACKS``."""

import pytest
from node_packs import DOCUMENT, PackResult, commits_of, failure_in, packs_folder, packs_in, table, try_pack, written_table

FOLDER = packs_folder()


@pytest.mark.packs
@pytest.mark.timeout(400)
@pytest.mark.skipif(FOLDER is None, reason="KEEPWARM_PACKS names no folder of packs")
@pytest.mark.parametrize("pack", packs_in(FOLDER) if FOLDER else [], ids=lambda pack: pack.name)
def test_a_pack_does_what_the_table_says(pack, tmp_path, monkeypatch):
    assert FOLDER is not None
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # there are packs that look for it and then load nothing
    result = try_pack(pack, commits_of(FOLDER).get(pack.name, ""), tmp_path)
    rows = written_table(DOCUMENT.read_text(encoding="utf-8")).splitlines()
    assert result.row() in rows


def test_the_committed_table_counts_its_rows():
    text = written_table(DOCUMENT.read_text(encoding="utf-8"))
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| Pack", "| ---"))]
    loaded = sum(row[3].strip() == "yes" for row in rows)
    assert text.startswith(f"{loaded} of {len(rows)} packs import, with {sum(int(row[4]) for row in rows)} nodes.")
    assert loaded >= 40


def test_a_failed_import_is_distinguished_from_a_missing_library():
    log = (
        "   0.2 seconds (IMPORT FAILED): /base/custom_nodes/one: ModuleNotFoundError: No module named 'insightface'\n"
        "   0.1 seconds (IMPORT FAILED): /base/custom_nodes/two: ImportError: no name 'x' from 'comfy.sd' (/root/of/all/sd.py)\n"
        "   0.1 seconds: /base/custom_nodes/three\n"
    )
    one, two, three = (PackResult(name, "", 0, failure_in(log, name)) for name in ("one", "two", "three"))
    assert one.wants_library == "insightface" and "its own requirement `insightface`" in one.row()
    assert two.wants_library == "" and two.failure == "ImportError: no name 'x' from 'comfy.sd' (sd.py)"
    assert three.row() == "| three |  | yes | 0 | |"
    assert table([one, three]).startswith("1 of 2 packs import, with 0 nodes.")
