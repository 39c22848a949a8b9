"""The flags that say where tokenizers of text encoders come from."""

import argparse


def tokenizers(group: argparse._ArgumentGroup) -> None:
    """tokenizers"""
    add = group.add_argument
    add(
        "--tokenizer-directory",
        action="append",
        default=[],
        metavar="DIR",
        help="look here first for tokenizers of text encoders whose files carry none, in a folder each (such as DIR/t5/tokenizer.json); "
        "give it again for more",
    )
    add("--offline", action="store_true", help="never fetch a tokenizer from the Hugging Face hub (also: HF_HUB_OFFLINE, KEEPWARM_OFFLINE)")
