"""What tests of adapter files share: files of trained methods on the embedded base, and how to run its U-Net."""

from __future__ import annotations

import json

import pytest
import torch


def perturb(base, method, scale=0.02):
    """An attached base as training would leave it: every trained value moved."""
    generator = torch.Generator().manual_seed(1)
    method.attach(base, generator)
    with torch.no_grad():
        for parameter in method.named(base).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


@pytest.fixture(scope="module")
def weights(random_file):
    """U-Net, text encoder and autoencoder of the embedded base's layout in LDM names, with random weights, so that each matters."""
    from medtune.training.embedded import architecture as small
    from safetensors.torch import load_file

    tensors = load_file(random_file)
    text = small.TEXT_PREFIX.removesuffix("text_model.")
    return tuple({key.removeprefix(part): value for key, value in tensors.items() if key.startswith(part)}
                 for part in (small.UNET_PREFIX, text, small.VAE_PREFIX))


@pytest.fixture
def new_base(weights):
    """A function: a base of these weights."""
    from medtune.training.base import base_from_tensors

    return lambda: base_from_tensors(*weights, name="small")


@pytest.fixture
def random_base(new_base):
    """A base of these weights."""
    return new_base()


@pytest.fixture(scope="session")
def trained_file(tmp_path_factory):
    """A function (method, moved, **settings) -> the adapter file that it makes on the embedded base, made once; see `perturb`."""
    from medtune.training.adapter import make_header, write_adapter
    from medtune.training.base import load_base
    from medtune.training.method import METHODS

    made = {}

    def make(name, moved=0.02, **settings):
        key = json.dumps([name, moved, settings], sort_keys=True)
        if key not in made:
            base, method = load_base("embedded"), METHODS[name](METHODS[name].Config(**settings))
            perturb(base, method, moved)
            header = make_header(base, method, title=name, steps=7, lr=1e-4, images=24, data_hash="ab" * 32,
                                 options={"steps": 7, "batch": 2, "size": 64})
            made[key] = write_adapter(tmp_path_factory.mktemp("adapters") / f"{name}.safetensors", method.export(base), header)
        return made[key]

    return make


@pytest.fixture(scope="session")
def output_of():
    """A function: the U-Net's output (2, 4, 16, 16) of a base, or of a U-Net, on a fixed input."""

    def run(model):
        unet = getattr(model, "unet", model)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            latents, states = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 77, 64, generator=generator)
            return unet(latents, torch.tensor([100, 700]), encoder_hidden_states=states).sample

    return run


@pytest.fixture(scope="session")
def tuned():
    """A function (adapter file, base) -> the base with the adapter applied by the library's own reader."""
    from medtune.training.adapter import apply_adapter, read_adapter
    from medtune.training.base import load_base

    def apply(file, ref="embedded"):
        base = load_base(ref)
        apply_adapter(base, read_adapter(file))
        return base

    return apply
