"""What public node packs do on small models, pack by pack: prompts whose kept results two servers are to agree on."""

from pack_cases import patching_packs, picture_packs, sampling_packs, text_packs
from pack_cases.case_graphs import Prompt

Cases = dict[str, dict[str, Prompt]]


def _merged(*parts: Cases) -> Cases:
    packs = dict.fromkeys(pack for part in parts for pack in part)
    return {pack: {name: prompt for part in parts for name, prompt in part.get(pack, {}).items()} for pack in packs}


CASES = _merged(patching_packs.CASES, sampling_packs.CASES, text_packs.CASES, picture_packs.CASES)
