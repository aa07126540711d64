"""What a file is, in a page; and every file that is none."""

import json
import pickle
import struct
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from medtune.errors import Missing, ModelError
from medtune.training.adapter import read_adapter
from medtune.training.anatomy import examine
from medtune.training.base import load_base
from medtune.training.export import export
from medtune.training.loaders import BYPASS, STOCK
from safetensors.torch import save_file

Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def save(tensors, path, header=None):
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=header)
    return path


def lora(stem=Q, rank=2, rows=128, columns=128, **more):
    return {f"{stem}.lora_up.weight": torch.ones(rows, rank), f"{stem}.lora_down.weight": torch.ones(rank, columns),
            **{f"{stem}.{end}": value for end, value in more.items()}}


def test_a_lora_of_ours(trained_file, tuned):
    file = trained_file("lora", targets="all", rank=3, alpha=2.0)
    found = examine(file)
    assert found.kind == "LoRA" and found.ranks == {"3": found.layers["LoRA"]}
    assert found.alphas == {"2": found.layers["LoRA"]} and found.types == {"F32": found.tensors}
    assert found.base["kind"] == "embedded" and found.base["hash"] == load_base("embedded").hash
    assert found.loaders == {STOCK: "exact", BYPASS: "exact"} and not found.unknown and not found.problems
    assert found.settings["medtune.config"]["rank"] == 3 and found.settings["ss_steps"] == "7"
    assert {"self-attention", "cross-attention", "convolutions", "time embedding"} <= set(found.targets)
    assert sum(found.targets.values()) == sum(count for _, count, _ in found.blocks) == found.layers["LoRA"]
    base, merged = load_base("embedded"), tuned(file)
    for block, _, norm in found.blocks:  # the same by the weights themselves
        squares = [(merged.unet.get_parameter(name) - parameter).square().sum() for name, parameter in base.unet.named_parameters()
                   if name.startswith(block + ".")]
        assert norm == pytest.approx(sum(squares).item() ** 0.5, rel=1e-3)
    names = [block for block, *_ in found.blocks]
    assert names.index("time_embedding") < names.index("down_blocks.0") < names.index("mid_block") < names.index("up_blocks.3")
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize(("name", "settings", "kind"), [
    ("bitfit", {}, "bias difference"), ("loha", {"rank": 2}, "LoHa"), ("lokr", {"rank": 2}, "LoKr"), ("dora", {}, "difference"),
    ("full", {"parts": "text-encoder"}, "difference")])
def test_other_methods(trained_file, name, settings, kind):
    found = examine(trained_file(name, **settings))
    assert kind in found.layers and found.loaders[STOCK] == "exact" and not found.unknown
    assert all(norm > 0 for *_, norm in found.blocks)
    if name == "full":
        assert {"text layer 0", "text layer 1", "text embeddings"} <= {block for block, *_ in found.blocks}


def test_a_folder_of_peft(trained_file, tmp_path):
    file = trained_file("lora", targets="attention", rank=2, alpha=4.0)
    export(read_adapter(file), "embedded", "peft", tmp_path / "peft")
    found, ours = examine(tmp_path / "peft"), examine(file)
    assert found.layers == ours.layers and found.ranks == ours.ranks and not found.unknown
    assert [norm for *_, norm in found.blocks] == pytest.approx([norm for *_, norm in ours.blocks], rel=1e-5)
    assert found.loaders[STOCK].startswith("not exact: peft names that it does not read")


@pytest.mark.parametrize(("tensors", "stock", "bypass"), [
    (lora(), "exact", "exact"),
    (lora(dora_scale=torch.ones(128, 1)), "not exact: DoRA along the outputs", "not exact: dora_scale, which it ignores"),
    (lora(dora_scale=torch.ones(1, 128)), "exact", "not exact: dora_scale, which it ignores"),
    (lora() | {f"{Q}.lora_up.weight": torch.zeros(128, 2), f"{Q}.dora_scale": torch.ones(128, 1)}, "exact", "not exact: dora_scale"),
    ({f"{Q}.oft_blocks": torch.zeros(32, 4, 4)}, "exact but for the strength", "not exact: rotations, on which it fails"),
    ({f"{Q}.oft_blocks": torch.zeros(32, 4, 4), f"{Q}.rescale": torch.ones(128, 1)}, "not exact: a rescaling that it ignores",
     "not exact"),
    ({f"{Q}.oft_blocks": torch.zeros(2, 32, 4, 4)}, "not exact: BOFT without alpha", "not exact"),
    (lora(diff=torch.ones(128, 128)), "not exact: a difference beside a LoRA", "not exact"),
    ({f"unet.{'mid_block.attentions.0.transformer_blocks.0.attn1.to_q'}.lora_{side}.weight": torch.ones(shape)
      for side, shape in (("A", (2, 128)), ("B", (128, 2)))}, "not exact: diffusers names that it does not read", "not exact"),
    (lora("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q"), "exact", "exact"),
])
def test_which_loaders_are_exact(tmp_path, tensors, stock, bypass):
    found = examine(save(tensors, tmp_path / "a.safetensors", {"modelspec.architecture": "medtune-embedded/lora"}))
    assert found.loaders[STOCK].startswith(stock) and found.loaders[BYPASS].startswith(bypass)


def test_unknown_keys_and_shapes_that_do_not_fit(tmp_path):
    tensors = lora() | lora("lora_unet_nothing") | {f"{Q}.mystery": torch.ones(1)} | lora(
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", columns=768)
    found = examine(save(tensors, tmp_path / "a.safetensors", {"modelspec.architecture": "medtune-embedded/lora"}))
    assert found.unknown == sorted([f"{Q}.mystery", "lora_unet_nothing.lora_down.weight", "lora_unet_nothing.lora_up.weight"])
    assert "names of no layer of its base (1 of 3 layers)" in found.loaders[STOCK]
    assert "that cannot be used (1 of 3 layers)" in found.loaders[STOCK]
    assert found.blocks == [("mid_block", 2, None)]


@pytest.mark.parametrize(("width", "kind"), [(768, "sd1"), (1024, "sd2"), (2048, None)])
def test_the_base_by_the_shapes(tmp_path, width, kind):
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    found = examine(save(lora(stem, rows=1280, columns=width), tmp_path / "a.safetensors"))
    assert found.base.get("kind") == kind and (found.base["title"] == "not one that is known here") == (kind is None)
    assert found.kind == "LoRA" and found.ranks == {"2": 1}


def test_values_that_are_not_finite_are_a_problem(tmp_path):
    found = examine(save(lora() | {f"{Q}.alpha": torch.tensor(float("nan"))}, tmp_path / "a.safetensors",
                         {"modelspec.architecture": "medtune-embedded/lora"}))
    assert found.problems == [f"NaN or infinite values in 1 of 3 tensors: {Q}.alpha"]
    json.dumps(asdict(found), allow_nan=False)


def test_a_vae_an_embedding_and_a_checkpoint(base_file, tmp_path):
    from medtune.training.vae_file import vae_tensors

    base = load_base("embedded")
    vae = examine(save(vae_tensors(base), tmp_path / "vae.safetensors"))
    assert vae.kind == "autoencoder (VAE) of TAESD layout" and set(vae.parts) == {"encoder", "decoder"}
    word = examine(save({"clip_l": torch.zeros(4, 768)}, tmp_path / "word.safetensors"))
    assert word.kind == "textual inversion" and word.base["kind"] == "sd1" and word.parts == {"clip_l": 4}
    model = examine(base_file)
    assert model.kind == "a Stable Diffusion checkpoint" and model.base["kind"] == "embedded" and model.base["channels"] == 4
    assert model.parts["unet"] == sum(parameter.numel() for parameter in base.unet.parameters())
    assert not vae.loaders and not word.loaders and not model.loaders


class Bomb:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_opened(tmp_path):
    mark = tmp_path / "mark"
    for name, content in (("a.pt", pickle.dumps(Bomb(mark))), ("a.safetensors", pickle.dumps(Bomb(mark)))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"is a pickle.*never read here"):
            examine(tmp_path / name)
    torch.save({"x": Bomb(mark)}, tmp_path / "b.ckpt")
    with pytest.raises(ModelError, match="is a pickle"):
        examine(tmp_path / "b.ckpt")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # it would have


def head(text, length=None):
    text = text.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


NESTED = "[" * 100_000


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty"),
    (head("{}", 2 * 2**30), "its header would be 2,147,483,648 bytes long"),
    (head("{}"), "holds no tensors"),
    (head('{"a": '), "header cannot be read"),
    (head('{"a": ' + NESTED), "header cannot be read"),
    (head('{"a": 1}'), "header cannot be read"),
    (head('{"__metadata__": {"a": 1}, "b": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'), "not an object of texts"),
    (head('{"__metadata__": ["a"], "b": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'), "not an object of texts"),
    (head('{"lora_unet_a.diff": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}') + bytes(4), "file that can be used"),
    (head('{"lora_unet_a.diff": {"dtype": "X32", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4), "file that can be used"),
    (b"<html><title>404</title>", "web page"),
    (b"just text", "no JSON header"),
    (b"GGUF" + bytes(100), "GGUF"),
])
def test_files_that_are_something_else(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        examine(tmp_path / "a.safetensors")


def test_a_truncated_and_a_missing_file(tmp_path):
    path = save(lora(), tmp_path / "a.safetensors")
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 20, 9):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="truncated"):
            examine(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(ModelError, match="longer than its header says"):
        examine(path)
    with pytest.raises(Missing, match="there is no file"):
        examine(tmp_path / "b.safetensors")


def test_a_file_of_nothing_known(tmp_path):
    found = examine(save({"weird": torch.ones(2)}, tmp_path / "a.safetensors"))
    assert found.kind == "no weights file of a known kind"
