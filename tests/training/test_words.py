"""Words that are taught to a base: their tokens, their vectors, and textual inversion."""

import pytest
import torch
from medtune.errors import ConfigError, ModelError
from medtune.training.adapter import Adapter, apply_adapter
from medtune.training.base import base_from_tensors
from medtune.training.methods.textual_inversion import TextualInversion, TextualInversionConfig
from medtune.training.tokenizer import END, START, Tokenizer
from medtune.training.words import teach, token_embedding

WORDS = 49408  # of the vocabulary


def attached(base, **settings):
    method = TextualInversion(TextualInversionConfig(**settings))
    method.attach(base, torch.Generator().manual_seed(0))
    return method


def test_tokens_of_taught_words():
    tokenizer = Tokenizer().extended({"my-film": 2}).extended({"my-film-2": 3})
    (cat,) = Tokenizer()(["cat"])[0][0, 1:2].tolist()
    comma = Tokenizer()([","])[0][0, 1].item()
    first, second = [WORDS, WORDS + 1], [WORDS + 2, WORDS + 3, WORDS + 4]
    for prompt, ids in [("my-film", first), ("my-film-2", second), ("cat, my-film", [cat, comma, *first]),
                        ("cat embedding:my-film, cat", [cat, *first, comma, cat]), ("embedding:my-film-2 my-film", [*second, *first])]:
        rows, lengths = tokenizer([prompt])
        assert rows[0, :len(ids) + 2].tolist() == [START, *ids, END] and lengths == [len(ids) + 2], prompt
    plain = ["my-films", "amy-film", "My-film", "my-film-3"]  # other words
    assert torch.equal(tokenizer(plain)[0], Tokenizer()(plain)[0])
    assert tokenizer.tokens("cat my-film") == ["cat</w>", "my-film</w>", "my-film</w>"]


def test_a_taught_word_at_the_end_of_a_long_prompt_is_cut():
    rows, lengths = Tokenizer().extended({"my-film": 5})(["lung " * 73 + "my-film"])
    assert lengths == [80] and rows[0, -4:].tolist() == [rows[0, 1].item(), WORDS, WORDS + 1, END]


@pytest.mark.parametrize(("name", "message"), [
    ("lung", "'lung' is in the text encoder's vocabulary.*choose another name, such as 'my-lung'"),
    ("Lung", "vocabulary"), ("a word", "cannot be taught.*such as 'my-a-word'"), ("", "cannot be taught.*'my-word'"),
    ("x/y", "cannot be taught"), ("-x", "cannot be taught"), ("my-film", "was taught to this base before"),
])
def test_names_that_cannot_be_taught(name, message):
    with pytest.raises(ConfigError, match=message):
        Tokenizer().extended({"my-film": 1}).extended({name: 1})


def test_a_taught_word_is_its_vectors(random_base):
    """Taught the vectors of known words, it reads as those words; and other prompts read as before."""
    before = random_base.encode_prompts(["chest x-ray", "a lung"])
    layer = token_embedding(random_base.text_encoder)
    ids, lengths = random_base.tokens(["chest x-ray"])
    teach(random_base, "my-film", layer.weight[ids[0, 1:lengths[0] - 1]])
    assert torch.equal(random_base.encode_prompts(["my-film", "a lung"]), before)
    teach(random_base, "my-other-film", torch.zeros(2, 64))
    assert torch.equal(random_base.encode_prompts(["my-film", "a lung"]), before)
    assert not torch.equal(random_base.encode_prompts(["my-other-film"])[0], before[0])


@pytest.mark.parametrize("shape", [(2, 768), (64,), (0, 64)])
def test_vectors_of_another_text_encoder(random_base, shape):
    with pytest.raises(ModelError, match=r"vectors of shape .* reads \(tokens, 64\)"):
        teach(random_base, "my-film", torch.zeros(shape))
    assert random_base.tokenizer.taught == {}


def test_a_base_without_a_text_encoder(weights):
    base = base_from_tensors(weights[0], None, None, name="small")
    with pytest.raises(ModelError, match=r"textual-inversion.* trains the text encoder"):
        attached(base)


def test_only_the_word_is_trained(random_base):
    method = attached(random_base, token="my-film", vectors=3)
    before = {name: value.clone() for name, value in random_base.text_encoder.state_dict().items()}
    random_base.encode_prompts(["a my-film"]).square().sum().backward()
    gradients = {name for name, parameter in random_base.text_encoder.named_parameters() if parameter.grad is not None}
    assert [name.rpartition(".")[2] for name in gradients] == ["word:my-film"]
    torch.optim.AdamW(method.parameters(random_base), lr=0.1).step()
    changed = {name for name, value in random_base.text_encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == gradients


def test_it_starts_as_the_words_it_is_told(random_base):
    plain = random_base.encode_prompts(["lung left lung"])
    attached(random_base, token="my-film", vectors=3, start="lung left")
    assert torch.equal(random_base.encode_prompts(["my-film"]), plain)


def test_it_starts_at_random_where_it_is_told_nothing(random_base):
    layer = token_embedding(random_base.text_encoder)
    method = attached(random_base, token="my-film", vectors=64, start="")
    (vectors,) = method.named(random_base).values()
    assert vectors.std().item() == pytest.approx(layer.weight.std().item(), rel=0.2)


@pytest.mark.parametrize(("template", "caption", "expected"), [
    ("{caption}, {token}", "Edema", "Edema, my-film"), ("{caption}, {token}", "", "my-film"),
    ("{token}: {caption}", "a {b}", "my-film: a {b}"), ("a film, {token}", "Edema", "a film, my-film"),
])
def test_what_is_read_for_a_caption(template, caption, expected):
    assert TextualInversion(TextualInversionConfig(token="my-film", template=template)).caption(caption) == expected


@pytest.mark.parametrize(("template", "message"), [("{caption}", r"has no \{token\}"), ("{token} {label}", r"has \{label\}"),
                                                   ("token", r"has no \{token\}")])
def test_templates_that_are_not(template, message):
    with pytest.raises(ConfigError, match=message):
        TextualInversion(TextualInversionConfig(template=template))


def test_the_file_goes_by_the_text_encoders_name(random_base):
    method = attached(random_base, token="my-film", vectors=2)
    assert {key: tuple(value.shape) for key, value in method.products(random_base)["embedding"].items()} == {"clip_l": (2, 64)}


def test_an_embedding_made_elsewhere_goes_by_the_name_of_its_file(random_base):
    assert apply_adapter(random_base, Adapter({"emb_params": torch.randn(2, 64)}, {}, "old-film.safetensors")) == [
        "prompts use the embedding of old-film.safetensors by the word old-film"]
    assert random_base.tokenizer.taught == {"old-film": 2}


def test_a_strength_that_an_embedding_cannot_have(random_base):
    with pytest.raises(ConfigError, match=r"strength is 0\.5.*Set it to 1"):
        apply_adapter(random_base, Adapter({"clip_l": torch.zeros(1, 64)}, {}, "my-film.safetensors"), strength=0.5)
