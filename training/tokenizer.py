"""CLIP's byte-pair tokeniser, built from the vocabulary that open_clip ships: the same ids as CLIPTokenizer, and nothing to fetch.

The merges are those of https://github.com/openai/CLIP (bpe_simple_vocab_16e6.txt.gz); the vocabulary follows from them.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Missing

LENGTH = 77
"""Tokens of a prompt, the start and the end among them."""

START, END = 49406, 49407

_MERGES = 49152 - 256 - 2
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


class Tokenizer:
    """Prompts to token ids, padded with the end token (Stable Diffusion 1) or with 0 (Stable Diffusion 2)."""

    def __init__(self, pad: int = END):
        self.pad = pad
        self.words = _bpe()

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Token ids (N, 77), and how many tokens each prompt needs with start and end: above 77, it was cut."""
        rows, lengths = [], []
        for encoding in self.words.encode_batch(list(prompts), add_special_tokens=False):
            ids = [START, *encoding.ids[: LENGTH - 2], END]
            rows.append(ids + [self.pad] * (LENGTH - len(ids)))
            lengths.append(len(encoding.ids) + 2)
        return torch.tensor(rows, dtype=torch.long).reshape(-1, LENGTH), lengths

    def tokens(self, prompt: str) -> list[str]:
        """The prompt's tokens as text, without start and end; `</w>` ends a word."""
        return self.words.encode(prompt, add_special_tokens=False).tokens


@lru_cache(maxsize=1)
def _bpe():
    """tokenizers' byte-pair model, with the normalisation and the word pattern of transformers' CLIPTokenizerFast."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Model

    merges = _merges()
    alphabet = _byte_alphabet()
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    model = Model(models.BPE({word: i for i, word in enumerate(words)}, merges, end_of_word_suffix="</w>",
                             unk_token="<|endoftext|>", fuse_unk=False))
    model.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    model.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return model


def _merges() -> list[tuple[str, str]]:
    with gzip.open(vocabulary_file(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1:_MERGES + 1]
    return [tuple(line.split()) for line in lines]


def vocabulary_file() -> Path:
    """open_clip's merges file, found without importing the package. Raises Missing where it is not installed."""
    found = importlib.util.find_spec("open_clip")
    file = Path(found.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz" if found else None
    if file is None or not file.is_file():
        raise Missing("the CLIP vocabulary is missing: it comes with open_clip. Install it with: pip install open_clip_torch")
    return file


def _byte_alphabet() -> list[str]:
    """A printable character for each byte, in the vocabulary's order: printable bytes first, then the others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
