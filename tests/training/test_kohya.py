"""Trainings for sd-scripts: the data comes back by the TOML source, the layers are those of the method, by LyCORIS itself."""

import json
import shlex
import subprocess

import pytest
import torch
from medtune.data.image import read_image
from medtune.data.record import Record
from medtune.data.source import read_records
from medtune.errors import ConfigError, DataError
from medtune.training.base import load_base
from medtune.training.kohya import write_training
from medtune.training.kohya_network import PRESET, network_of
from medtune.training.method import METHODS
from medtune.training.objective import ObjectiveOptions
from medtune.training.options import TrainOptions
from medtune.training.outline import outline
from PIL import Image

OPTIONS = TrainOptions(steps=30, batch=2, size=64, seed=3, warmup=5, caption_dropout=0.25)


def make(name, **settings):
    return METHODS[name](METHODS[name].Config(**settings))


@pytest.fixture(scope="module")
def sd1():
    """Stable Diffusion 1.5 without its values."""
    return outline("sd1")


@pytest.fixture
def records(tmp_path):
    """Five images, one without a caption, one with quotes and lines in it, one of 16 bits."""
    found = []
    for index, caption in enumerate(("clear lungs", "", 'a "quoted"\n caption', "edema", "deep")):
        path = tmp_path / "original" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = torch.randint(0, 256, (70, 90), generator=torch.Generator().manual_seed(index), dtype=torch.uint8).numpy()
        image = Image.fromarray(pixels) if index < 4 else Image.fromarray(pixels.astype("uint16") * 257)
        image.save(path)
        found.append(Record(path, caption, repeats=1 + index % 2))
    return found


def value(command, flag):
    return command[command.index(flag) + 1]


def test_the_data_comes_back(sd1, records, tmp_path):
    written = write_training(tmp_path / "out", records, sd1, make("lora"), options=OPTIONS)
    found = read_records(written.dataset, missing="empty", changing="ignore")
    assert sorted((record.caption, record.repeats) for record in found) == sorted(
        (" ".join(record.caption.split()), record.repeats) for record in records)
    by_caption = {record.caption: record for record in found}
    for record in records:
        got = read_image(by_caption[" ".join(record.caption.split())].image, 64, "none")
        assert got.shape == (3, 64, 64) and (got - read_image(record.image, 64, "crop")).abs().max() <= 0.5 / 255 + 1e-6
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.png")} == {"1_images", "2_images"}
    assert len(list((tmp_path / "out").rglob("*.txt"))) == 4  # an empty caption file stops sd-scripts
    text = written.dataset.read_text()
    assert "caption_dropout_rate = 0.25" in text and "resolution = 64" in text and "batch_size = 2" in text


def test_references_copy_nothing(sd1, records, tmp_path):
    written = write_training(tmp_path / "out", records[:4], sd1, make("lora"), options=OPTIONS, reference=True)
    found = read_records(written.dataset, missing="empty", changing="ignore")
    assert {record.image for record in found} == {record.image for record in records[:4]}
    assert not list((tmp_path / "out").rglob("*.png"))
    with pytest.raises(DataError, match=r"1 of 5 images.*4\.png: it has more than 8 bits a channel"):
        write_training(tmp_path / "other", records, sd1, make("lora"), options=OPTIONS, reference=True)
    with pytest.raises(DataError, match=r"sd-scripts does not read \.dcm"):
        write_training(tmp_path / "other", [Record(tmp_path / "a.dcm", "x")], sd1, make("lora"), options=OPTIONS, reference=True)


def test_the_command(sd1, records, tmp_path):
    objective = ObjectiveOptions(weighting="min-snr", snr_gamma=4.0, noise_offset=0.05)
    written = write_training(tmp_path / "out", records, sd1, make("lora", rank=4, alpha=8.0), options=OPTIONS, objective=objective)
    command = written.command
    assert command[:2] == ["accelerate", "launch"] and "train_network.py" in command
    for flag, wanted in (("--max_train_steps", "30"), ("--seed", "3"), ("--learning_rate", "0.0001"), ("--network_dim", "4"),
                         ("--network_alpha", "8"), ("--lr_scheduler", "constant_with_warmup"), ("--lr_warmup_steps", "5"),
                         ("--min_snr_gamma", "4"), ("--noise_offset", "0.05"), ("--dataset_config", str(written.dataset))):
        assert value(command, flag) == wanted
    assert "--network_train_unet_only" in command and "--v2" not in command
    script = (written.folder / "train.sh").read_text()
    assert subprocess.run(["sh", "-n", str(written.folder / "train.sh")], check=False).returncode == 0
    body = script[script.index("accelerate"):].replace("\\\n", " ")
    assert shlex.split(body) == command
    assert all(f"# - {notice}" in script for notice in written.notices)


def layers_of(base, method):
    return {f"{place.part}.{place.name}" for place in method.chosen(base)}


def test_sd_scripts_own_lora_where_its_layers_are_the_methods(sd1):
    """All linear layers and 1 x 1 convolutions of the attention blocks; with conv_dim those of ResNets and samplers too."""
    attention = make("lora", targets="attention+ff", patterns="proj_in, proj_out")
    assert len(attention.chosen(sd1)) == 192  # as sd-scripts itself counts them
    network = network_of(sd1, attention)
    assert value(network.settings, "--network_module") == "networks.lora" and not network.preset
    every = make("lora", targets="all", patterns="time_embedding=0")
    network = network_of(sd1, every)
    assert value(network.settings, "--network_module") == "networks.lora"
    assert network.settings[network.settings.index("--network_args") + 1:] == ["conv_dim=8", "conv_alpha=16"]
    for other in (make("lora"), make("lora", targets="all"), make("lora", targets="attention+ff", patterns="proj_in, proj_out=4")):
        assert value(network_of(sd1, other).settings, "--network_module") == "lycoris.kohya"
    stable = network_of(sd1, make("lora", targets="all", patterns="time_embedding=0", rank=16, alpha=2.0, rank_stabilised=True))
    assert value(stable.settings, "--network_alpha") == "8"  # 2 / sqrt(16) = 8 / 16


@pytest.mark.parametrize(("name", "settings"), [
    ("lora", {"rank": 4, "alpha": 2.0}), ("lora", {"targets": "all", "rank": 4, "patterns": "attn2=2"}), ("loha", {"rank": 2}),
    ("lokr", {"rank": 2}), ("dora", {"rank": 4}), ("lora", {"rank": 4, "text_encoder": True})], ids=str)
def test_lycoris_makes_the_same_layers(tmp_path, name, settings):
    """LyCORIS itself, given the preset and the arguments, has the tensors that the method's file has."""
    lycoris = pytest.importorskip("lycoris.kohya")
    base, method = load_base("embedded"), make(name, **settings)
    network = network_of(base, method)
    (tmp_path / PRESET).write_text(network.preset)
    given = network.settings[network.settings.index("--network_args") + 1:]
    options = dict(word.replace(PRESET, str(tmp_path / PRESET)).split("=", 1) for word in given)
    lycoris.LycorisNetworkKohya.NAME_ALGO_MAP = {}  # as in a process of its own
    text = as_in_transformers_4(base.text_encoder) if settings.get("text_encoder") else None
    theirs = lycoris.create_network(1.0, int(value(network.settings, "--network_dim")),
                                    float(value(network.settings, "--network_alpha")), None, text, base.unet,
                                    warn_on_unmatched=False, **options)
    found = {f"{layer.lora_name}.{key}": tuple(tensor.shape) for layer in theirs.unet_loras + theirs.text_encoder_loras
             for key, tensor in layer.state_dict().items()}
    again = load_base("embedded")
    method.attach(again, torch.Generator().manual_seed(0))
    ours = {key: tuple(tensor.shape) for key, tensor in method.export(again).items()}
    if name == "dora":  # whose file holds whole differences
        stems = {key.rpartition(".")[0] for key in ours}
        assert {key.split(".")[0] for key in found} == stems and all(f"{stem}.dora_scale" in found for stem in stems)
        return
    assert {key: shape for key, shape in found.items() if not key.endswith((".alpha", ".scalar"))} == {
        key: shape for key, shape in ours.items() if not key.endswith(".alpha")}
    alphas = {f"{layer.lora_name}.alpha": float(layer.alpha) for layer in theirs.unet_loras}
    if name == "lora":
        wanted = {key: tensor.item() for key, tensor in method.export(again).items() if key.endswith(".alpha") and "_unet_" in key}
        assert alphas == pytest.approx(wanted)


def as_in_transformers_4(text_encoder):
    """The text encoder with its layers under `text_model`, as sd-scripts' version of transformers has them."""
    if hasattr(text_encoder, "text_model"):
        return text_encoder
    outer = torch.nn.Module()
    outer.text_model = text_encoder
    return outer


def test_full_fine_tuning_reads_metadata(sd1, records, tmp_path):
    method = make("full", parts="unet+text-encoder", lr_text_encoder=1e-6)
    written = write_training(tmp_path / "out", records, sd1, method, options=OPTIONS)
    assert "fine_tune.py" in written.command and "--train_text_encoder" in written.command
    assert value(written.command, "--learning_rate_te") == "1e-06"
    assert "metadata_file" in written.dataset.read_text() and "image_dir" not in written.dataset.read_text()
    entries = json.loads((tmp_path / "out" / "1_images.json").read_text())
    assert len(entries) == 3 and all(path.endswith(".png") for path in entries)
    with pytest.raises(ConfigError, match="parts is 'vae'"):
        write_training(tmp_path / "b", records, sd1, make("full", parts="vae"), options=OPTIONS)


def test_textual_inversion_writes_its_word_into_captions(sd1, records, tmp_path):
    written = write_training(tmp_path / "out", records, sd1, make("textual-inversion", token="my-lungs", vectors=3), options=OPTIONS)
    assert "train_textual_inversion.py" in written.command and value(written.command, "--num_vectors_per_token") == "3"
    captions = {path.read_text().strip() for path in (tmp_path / "out").rglob("*.txt")}
    assert "clear lungs, my-lungs" in captions and len(captions) == 5


def test_what_sd_scripts_has_not(sd1, records, tmp_path):
    def refused(message, base=sd1, method=None, options=OPTIONS, objective=None):
        with pytest.raises(ConfigError, match=message):
            write_training(tmp_path / "out", records, base, method or make("lora"), options=options, objective=objective)

    refused("cannot train 'bitfit'; of MedTune's methods it has: lora", method=make("bitfit"))
    refused("is embedded with 4", base=load_base("embedded", device="meta"))
    refused("is sd1 with 9", base=outline("sd1", 9))
    refused("no like of: ema, masked, prior_weight", options=TrainOptions(ema=0.99),
            objective=ObjectiveOptions(masked=True, prior_weight=1.0, class_prompt="x"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no images"):
        write_training(tmp_path / "out", [], sd1, make("lora"), options=OPTIONS)
