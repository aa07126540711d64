"""Networks of open_clip from local files alone: a folder as the Hugging Face hub keeps it, or a file of weights with a network's name.

open_clip would ask the hub for the configuration of a text network that is transformers' own; here it must lie in the folder, but for
those of exactly BERT's base shape.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import ConfigError, Missing, ModelError, listing, near
from .weights import differences, read_tensors, refuse_mismatch

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors")
BERT_BASE = ("microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract", "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract")

Parts = tuple[nn.Module, Callable[[Any], Tensor], Any]


def load_folder(path: Path) -> Parts:
    """(network, transform, tokenizer) of a folder."""
    import open_clip

    weights = next((path / name for name in FILES if (path / name).is_file()), None)
    if weights is None or not (path / CONFIG).is_file():
        raise Missing(f"{path} lacks {CONFIG if weights else ' or '.join(FILES)}; take the whole folder from where it came")
    text = _read_config(path)["text_cfg"]
    with _text_network(path, text) as local:
        settings = {"text_cfg": {**text, "hf_model_name": local, "hf_model_pretrained": False}} if local else {}
        network = _create(f"local-dir:{path}", weights, **settings)
    try:
        tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
    except (OSError, ValueError) as error:
        raise Missing(f"{path} lacks the tokenizer's files (tokenizer.json, tokenizer_config.json, vocab.txt): "
                      f"{str(error).splitlines()[0]}") from error
    return network, _transform(network), tokenizer


def load_file(path: Path, name: str) -> Parts:
    """(network, transform, tokenizer) of a file with the network's name."""
    import open_clip

    names = open_clip.list_models()
    if name not in names:
        raise ConfigError(f"network is {name!r}{near(name, names)}; for a file of weights it must be one of "
                          f"open_clip's: {listing(names, 200)}")
    config = open_clip.get_model_config(name)
    if "siglip" in name.lower() or {"hf_model_name", "hf_tokenizer_name"} & {*config["text_cfg"]}:
        raise ConfigError(f"the tokenizer of {name} is not part of open_clip: instead of a file, give the model's folder, with "
                          f"{CONFIG} and the tokenizer's files")
    network = _create(name, path)
    return network, _transform(network), open_clip.get_tokenizer(name)


def _create(name: str, weights: Path, **settings: Any) -> nn.Module:
    """The network with the weights of a file, all of them; those of its parts alone are never asked for."""
    import open_clip

    tensors = read_tensors(weights)
    network = open_clip.create_model(name, load_weights=False, pretrained_image=False, pretrained_text=False, **settings)
    try:
        open_clip.load_checkpoint(network, str(weights), strict=True, weights_only=True)
    except (RuntimeError, KeyError, ValueError, AttributeError, TypeError) as error:
        refuse_mismatch(weights, f"open_clip's {name}", **differences(tensors, network.state_dict()))
        raise ModelError(f"open_clip cannot read {weights} as {name}: {str(error).splitlines()[0]}") from error
    return network


def _transform(network: nn.Module) -> Callable[[Any], Tensor]:
    """What open_clip does to a picture before this network."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        return {**config, "text_cfg": dict(config["text_cfg"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path / CONFIG} is no configuration of open_clip ({error!r}); fetch it again") from error


@contextlib.contextmanager
def _text_network(path: Path, text: dict[str, Any]) -> Iterator[str | None]:
    """A folder with the configuration of a text network of transformers, not to ask the hub for it; None for open_clip's own."""
    name = text.get("hf_model_name")
    if not name:
        yield None
    elif (path / "config.json").is_file():
        yield str(path)
    elif name in BERT_BASE:
        from transformers import BertConfig

        with tempfile.TemporaryDirectory() as folder:
            BertConfig().save_pretrained(folder)
            yield folder
    else:
        raise Missing(f"{path} lacks the configuration of its text network: put config.json of https://huggingface.co/{name} into it")
