"""CLIP's tokens, against open_clip's tokeniser (another implementation) and known ids."""

import importlib.util

import pytest
import torch
from medtune.errors import Missing
from medtune.training import tokenizer
from medtune.training.tokenizer import END, LENGTH, START, Tokenizer

PROMPTS = [
    "Chest X-ray showing Cardiomegaly, Pleural Effusion",
    "Normal chest X-ray with no significant findings",
    "",
    "  two   spaces\n and a\tline  ",
    "12mm nodule, 3.5 cm; it's the patient's (left) lung!",
    "naïve café, Größe 7 µm, ½ Ångström",
    "肺炎 ひらがな Привет 🫁",
    "under_score __ a--b ... <tag>",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
]


def test_ids_are_open_clips():
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer(clean="lower")(PROMPTS)  # pads with 0
    ours, _ = Tokenizer(pad=0)(PROMPTS)
    assert torch.equal(ours, theirs)


def test_known_ids():
    ids, lengths = Tokenizer()(["a photo of a cat", ""])
    assert ids[0, :8].tolist() == [START, 320, 1125, 539, 320, 2368, END, END]  # of the CLIP paper's own tokeniser
    assert ids.shape == (2, LENGTH) and ids.dtype == torch.long and lengths == [7, 2]
    assert (ids[1, 1:] == END).all()


@pytest.mark.parametrize("pad", [0, END])
def test_padding(pad):
    ids, _ = Tokenizer(pad)(["a cat"])
    assert ids[0, 3] == END and (ids[0, 4:] == pad).all()


def test_a_long_prompt_is_cut_and_its_length_told():
    ids, lengths = Tokenizer()(["lung " * 75, "lung " * 76])
    assert lengths == [77, 78]
    assert torch.equal(ids[0], ids[1]) and ids[1, 0] == START and ids[1, -1] == END and END not in ids[1, :-1]


def test_no_prompt():
    ids, lengths = Tokenizer()([])
    assert ids.shape == (0, LENGTH) and lengths == []


def test_the_words_of_a_prompt():
    assert Tokenizer().tokens("Cardiomegaly left") == ["cardi", "ome", "gal", "y</w>", "left</w>"]


def test_special_tokens_in_a_prompt():
    assert Tokenizer()(["<|endoftext|>"])[0][0, :3].tolist() == [START, END, END]


def test_a_missing_vocabulary_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Missing, match="pip install open_clip_torch"):
        tokenizer.vocabulary_file()
