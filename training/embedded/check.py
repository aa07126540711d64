"""Does the prompt matter? Sample the embedded base on prompts in pairs, and measure what the words name.

    python -m medtune.training.embedded.check [BASE.safetensors] --count 8 --grid samples.png

Each question has two prompts that differ in what they name, and a measure of grey values that must be higher for the first.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import FILE
from .architecture import SCHEDULER, build, from_ldm
from .pretrain import tokenize


@dataclass(frozen=True)
class Question:
    """Two prompts, and a measure (N, H, W) grey in [0, 1] -> (N,) that is to be higher for the first."""

    name: str
    higher: str
    lower: str
    measure: Callable[[Tensor], Tensor]


def half_difference(grey: Tensor) -> Tensor:
    """Left half's mean less the right half's."""
    half = grey.shape[-1] // 2
    return grey[..., :half].mean((1, 2)) - grey[..., half:].mean((1, 2))


def rise(grey: Tensor) -> Tensor:
    """Top half's mean less the bottom half's."""
    return half_difference(grey.transpose(1, 2))


def middle(grey: Tensor) -> Tensor:
    """Mean of the central quarter of the side less the mean of the outermost eighth."""
    side = grey.shape[-1]
    inner = grey[:, 3 * side // 8 : 5 * side // 8, 3 * side // 8 : 5 * side // 8].mean((1, 2))
    frame = torch.ones(side, side, dtype=torch.bool)
    frame[side // 8 : -(side // 8), side // 8 : -(side // 8)] = False
    return inner - grey[:, frame].mean(1)


def roughness(grey: Tensor) -> Tensor:
    """Mean absolute difference of points a sixteenth of the side apart."""
    lag = grey.shape[-1] // 16
    return (grey[..., lag:] - grey[..., :-lag]).abs().mean((1, 2)) + (grey[:, lag:] - grey[:, :-lag]).abs().mean((1, 2))


def mean_grey(grey: Tensor) -> Tensor:
    """Mean of the image."""
    return grey.mean((1, 2))


def spread(grey: Tensor) -> Tensor:
    """Standard deviation of the image: how much of it a large bright object takes."""
    return grey.std((1, 2))


def _pair(name: str, pattern: str, higher: str, lower: str, measure: Callable[[Tensor], Tensor]) -> Question:
    """A question whose prompts are `pattern` with one word or another in it."""
    return Question(name, pattern.format(higher), pattern.format(lower), measure)


QUESTIONS = (
    _pair("background", "a {} plain background", "bright", "dark", mean_grey),
    _pair("side", "a large white circle on the {}, dark plain background", "left", "right", half_difference),
    _pair("height", "a large white square at the {}, dark plain background", "top", "bottom", rise),
    _pair("tone", "a large {} circle in the centre, grey plain background", "white", "black", middle),
    _pair("kind", "a large white {} in the centre, dark plain background", "circle", "ring", middle),
    _pair("size", "a {} white square in the centre, dark plain background", "large", "small", spread),
    _pair("texture", "a grey {} background", "striped", "plain", roughness),
    _pair("gradient", "a grey background, brighter on the {}", "left", "right", half_difference),
)


def load(path: Path = FILE) -> tuple[nn.Module, nn.Module, nn.Module]:
    """U-Net, text encoder and autoencoder of a base file, in float32 and evaluation mode."""
    networks = build()
    for network, state in zip(networks, from_ldm(load_file(path)), strict=True):
        network.load_state_dict({key: value.float() for key, value in state.items()})
    return networks


@torch.inference_mode()
def sample(networks, prompts: list[str], seed: int, *, steps=30, guidance=5.0, side=64, spacing="leading") -> Tensor:
    """DDIM latents (N, 4, side, side), one per prompt; the noise of image i follows from seed + i alone."""
    from diffusers import DDIMScheduler

    unet, text_encoder, _ = networks
    scheduler = DDIMScheduler(**SCHEDULER, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    states = text_encoder(tokenize([""] * len(prompts) + prompts)).last_hidden_state
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    latents = torch.cat([torch.randn(1, 4, side, side, generator=generator) for generator in generators])
    for time in scheduler.timesteps:
        free, told = unet(torch.cat([latents, latents]), time, states).sample.chunk(2)
        latents = scheduler.step(free + guidance * (told - free), time, latents).prev_sample
    return latents


@torch.inference_mode()
def decode(networks, latents: Tensor) -> Tensor:
    """Latents (N, 4, h, w) -> images (N, 3, 8 h, 8 w) in [0, 1]."""
    vae = networks[2]
    images = torch.cat([vae.decode(latent[None]).sample for latent in latents])
    return (images / 2 + 0.5).clamp(0, 1)


def ask(networks, question: Question, count: int, seed: int, **options) -> tuple[Tensor, Tensor, Tensor]:
    """Measures (count,) of the first and of the second prompt, and the 2 * count images; both prompts start from the same noise."""
    images = [decode(networks, sample(networks, [prompt] * count, seed, **options)) for prompt in (question.higher, question.lower)]
    higher, lower = (question.measure(each.mean(1)) for each in images)
    return higher, lower, torch.cat(images)


def main() -> None:
    """The command line: a Markdown table on stdout, and a grid of the images where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, nargs="?", default=FILE)
    parser.add_argument("--count", type=int, default=8, help="images per prompt")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--spacing", default="leading", choices=["leading", "trailing"])
    parser.add_argument("--side", type=int, default=64, help="latent side; 64 is 512 pixels")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--grid", type=Path)
    options = parser.parse_args()
    networks = load(options.base)
    settings = {"steps": options.steps, "guidance": options.guidance, "side": options.side, "spacing": options.spacing}
    rows = []
    print("| what is asked | higher for | than for | mean measure | pairs right |\n|---|---|---|---|---|")
    for question in QUESTIONS:
        higher, lower, images = ask(networks, question, options.count, options.seed, **settings)
        right = int((higher > lower).sum())
        measured = f"{higher.mean():.2f} / {lower.mean():.2f} | {right} of {len(higher)}"
        print(f"| {question.name} | {question.higher} | {question.lower} | {measured} |", flush=True)
        rows.append(images)
    if options.grid:
        save_grid(torch.stack(rows), options.grid)


def save_grid(rows: Tensor, path: Path, side: int = 128) -> None:
    """Write images (rows, columns, 3, H, W) as one picture."""
    from PIL import Image

    count, columns = rows.shape[:2]
    small = torch.nn.functional.interpolate(rows.flatten(0, 1), size=(side, side), mode="area")
    grid = small.view(count, columns, 3, side, side).permute(0, 3, 1, 4, 2).reshape(count * side, columns * side, 3)
    Image.fromarray((grid * 255).round().byte().numpy()).save(path)


if __name__ == "__main__":
    main()
