"""CLIP's byte-pair tokeniser, built from the vocabulary that open_clip ships: the same ids as CLIPTokenizer, and nothing to fetch.

The merges are those of https://github.com/openai/CLIP (bpe_simple_vocab_16e6.txt.gz); the vocabulary follows from them.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError, Missing

LENGTH = 77
"""Tokens of a prompt, the start and the end among them."""

START, END = 49406, 49407

_MERGES = 49152 - 256 - 2
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


class Tokenizer:
    """Prompts to token ids, padded with the end token (Stable Diffusion 1) or with 0 (Stable Diffusion 2).

    `taught` are words beyond the vocabulary with the number of tokens that each stands for (textual inversion); a prompt may write
    them as they are or, as in ComfyUI, after `embedding:`. Their ids follow the vocabulary's.
    """

    def __init__(self, pad: int = END, taught: Mapping[str, int] | None = None):
        self.pad = pad
        self.words = _bpe()
        self.taught = dict(taught or {})
        self._ids, first = {}, self.words.get_vocab_size()
        for name, count in self.taught.items():
            self._ids[name] = range(first, first + count)
            first += count
        names = "|".join(re.escape(name) for name in self.taught)
        self._pattern = re.compile(rf"(?<![\w-])(?:embedding:)?({names})(?![\w-])") if names else None

    def extended(self, words: Mapping[str, int]) -> Tokenizer:
        """The same with further words. Raises ConfigError for a name that cannot be one, or that is taken."""
        for name in words:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ConfigError(f"the word {name!r} cannot be taught: a name has letters, digits, - and _ alone, and begins with a "
                                  f"letter or a digit, such as {_suggestion(name)!r}")
            if name in self.taught or len(self.words.encode(name, add_special_tokens=False).ids) == 1:
                where = "was taught to this base before" if name in self.taught else "is in the text encoder's vocabulary"
                raise ConfigError(f"the word {name!r} {where}, and prompts could not tell the two apart; choose another name, such as "
                                  f"{_suggestion(name)!r}")
        return Tokenizer(self.pad, {**self.taught, **words})

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Token ids (N, 77), and how many tokens each prompt needs with start and end: above 77, it was cut."""
        rows, lengths = [], []
        for found in self._encode(list(prompts)):
            ids = [START, *found[: LENGTH - 2], END]
            rows.append(ids + [self.pad] * (LENGTH - len(ids)))
            lengths.append(len(found) + 2)
        return torch.tensor(rows, dtype=torch.long).reshape(-1, LENGTH), lengths

    def _encode(self, prompts: list[str]) -> list[list[int]]:
        if self._pattern is None:
            return [encoding.ids for encoding in self.words.encode_batch(prompts, add_special_tokens=False)]
        return [[token for text, name in self._pieces(prompt)
                 for token in (self._ids[name] if name else self.words.encode(text, add_special_tokens=False).ids)]
                for prompt in prompts]

    def _pieces(self, prompt: str) -> Iterator[tuple[str, str | None]]:
        """(text, name of the taught word or None) of each piece of a prompt."""
        end = 0
        for match in self._pattern.finditer(prompt) if self._pattern else ():
            yield prompt[end:match.start()], None
            yield match[0], match[1]
            end = match.end()
        yield prompt[end:], None

    def tokens(self, prompt: str) -> list[str]:
        """The prompt's tokens as text, without start and end; `</w>` ends a word."""
        return [token for text, name in self._pieces(prompt) for token in
                ([f"{name}</w>"] * self.taught[name] if name else self.words.encode(text, add_special_tokens=False).tokens)]


def _suggestion(name: str) -> str:
    return f"my-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-') or 'word'}"


@lru_cache(maxsize=1)
def _bpe():
    """tokenizers' byte-pair model, with the normalisation and the word pattern of transformers' CLIPTokenizerFast."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Model

    found = merges()
    alphabet = _byte_alphabet()
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, found), "<|startoftext|>", "<|endoftext|>"]
    model = Model(models.BPE({word: i for i, word in enumerate(words)}, found, end_of_word_suffix="</w>",
                             unk_token="<|endoftext|>", fuse_unk=False))
    model.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    model.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return model


def merges() -> list[tuple[str, str]]:
    """The pairs that are merged, in order."""
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
