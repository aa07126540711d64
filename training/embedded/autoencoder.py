"""Train the embedded base's autoencoder (TAESD's layout) on nothing but the procedural images of `world`.

    python -m medtune.training.embedded.autoencoder OUT.safetensors --steps 1400

The loss is L1 + MSE, where an image counts the more the smaller its error is, plus penalties that keep each latent channel near
zero mean and unit deviation, and within the decoder's reach. What is left of the offset is folded into the encoder's last and the
decoder's first convolution before the last part of the training, which then mends the rest.

With `--decoder` the encoder stays as it is, and the decoder is trained on for the mean of the images' PSNR. Latents made before stay
valid.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import scenes, world
from .architecture import build
from .muon import Muon

CROP = 128
LATENT_LIMIT = 3.0  # the decoder squeezes latents by tanh(z / 3) * 3: what lies far beyond it sees no difference in


def train(steps: int, batch: int, seed: int, out: Path, *, minutes: float = math.inf, resume: Path | None = None,
          decoder: bool = False) -> nn.Module:
    """Train and return the autoencoder; every 50 steps its state is written to `out` (diffusers' keys, float32).

    With `resume`, an earlier state is the start (its latents normalised first) and the learning rate begins again; with `decoder`
    besides, the decoder alone is trained, at half the rates.

    `minutes` bounds the time: the learning rate then falls with the time used when that runs ahead of the steps.
    """
    torch.manual_seed(seed)
    vae = load(resume).train() if resume else start(build()[2].train()).to(memory_format=torch.channels_last)
    if resume and not decoder:
        normalise(vae, seed)
    vae.encoder.requires_grad_(not decoder)
    optimisers = optimiser(vae)
    log = out.with_suffix(".jsonl").open("w", buffering=1)
    running = torch.tensor([[0.0] * 4, [1.0] * 4])
    begun, folded, step, done = time.monotonic(), decoder, 0, 0.0
    while done < 1:
        if not folded and done > 0.6:
            normalise(vae, seed)
            running.copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))
            folded = True
        set_rate(optimisers, (0.5 if decoder else 1) * min(1, (step + 1) / 20) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done)))
        images = batches(seed, step, batch, CROP)
        loss, psnr = decoder_step(vae, optimisers, images) if decoder else train_step(vae, optimisers, images, running)
        log.write(json.dumps({"step": step, "loss": loss, "psnr": psnr, "seconds": round(time.monotonic() - begun)}) + "\n")
        step += 1
        done = max(step / steps, (time.monotonic() - begun) / 60 / minutes)
        if step % 50 == 0 or done >= 1:
            save_file({key: value.contiguous() for key, value in vae.state_dict().items()}, out)
            print(f"step {step} ({done:.0%}) loss {loss:.4f} psnr {psnr:.1f} dB", file=sys.stderr, flush=True)
    return vae.eval()


def train_step(vae: nn.Module, optimisers: list, images: Tensor, running: Tensor) -> tuple[float, float]:
    """One update on images (N, 3, H, W) in [-1, 1]: the loss, and the batch's PSNR in dB.

    `running` (2, 4), each latent channel's mean and deviation over the last twenty batches or so, is brought up to date in place.
    What it is off by steers this batch's: a single batch's mean is no guide, and must be free to differ.
    """
    latents = vae.encode(images).latents
    error = vae.decode(latents).sample - images
    current = torch.stack(statistics(latents))
    running.lerp_(current.detach(), 0.05)
    off = running - torch.tensor([[0.0], [1.0]])
    single = error.abs().mean((1, 2, 3)) + error.square().mean((1, 2, 3))
    weight = 1 / (single.detach() + 0.02)  # a plain image's small error counts as much as a busy one's large error
    loss = (weight * single).sum() / weight.sum()
    beyond = (latents.abs() - LATENT_LIMIT).clamp(min=0).square().mean()
    (loss + 0.05 * (off.clamp(-1, 1) * current).mean() + 0.05 * beyond).backward()
    for each in optimisers:
        each.step()
        each.zero_grad()
    return single.mean().item(), -10 * math.log10((error.detach() / 2).square().mean().item())


def decoder_step(vae: nn.Module, optimisers: list, images: Tensor) -> tuple[float, float]:
    """One update of the decoder on images (N, 3, H, W) in [-1, 1]: the L1 + MSE error, and the mean of the images' PSNR in dB."""
    with torch.no_grad():
        latents = vae.encode(images).latents
    error = vae.decode(latents).sample - images
    squared = error.square().mean((1, 2, 3))
    squared.add(1e-5).log().mean().backward()
    for each in optimisers:
        each.step()
        each.zero_grad()
    squared = squared.detach()
    return (error.detach().abs().mean() + squared.mean()).item(), -10 * (squared / 4).log10().mean().item()


def start(vae: nn.Module) -> nn.Module:
    """Start as a plain resampling: blocks begin as identities, the convolutions between them pass their input on."""
    with torch.no_grad():
        for block in vae.modules():
            if type(block).__name__ == "AutoencoderTinyBlock":
                block.conv[4].weight.zero_()
                block.conv[4].bias.zero_()
        for layer in [*vae.encoder.layers, *vae.decoder.layers]:
            if isinstance(layer, nn.Conv2d) and layer.in_channels == layer.out_channels:
                nn.init.dirac_(layer.weight)
        vae.decoder.layers[-1].bias.fill_(0.5)
    return vae


def optimiser(vae: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the inner convolutions, AdamW for the first and last ones and the biases."""
    inner = [p for p in vae.parameters() if p.requires_grad and p.dim() == 4 and p.shape[:2] == (64, 64)]
    chosen = {id(p) for p in inner}
    rest = [p for p in vae.parameters() if p.requires_grad and id(p) not in chosen]
    return [Muon(inner, lr=5e-4), torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0)]


def set_rate(optimisers: list, share: float) -> None:
    """Set each learning rate to this share of its initial value."""
    for each in optimisers:
        for group in each.param_groups:
            group["lr"] = share * group.setdefault("initial_lr", group["lr"])


def batches(seed: int, step: int, count: int, size: int) -> Tensor:
    """(count, 3, size, size) procedural images in [-1, 1]; no image is seen twice."""
    made = [world.image(np.random.default_rng([seed, step, i]), size) for i in range(count)]
    return torch.from_numpy(np.stack(made) * 2 - 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encode(vae: nn.Module, images: Tensor) -> Tensor:
    """Latents (N, 4, H / 8, W / 8), one image at a time."""
    return torch.cat([vae.encode(image[None]).latents for image in images])


def statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Each latent channel's mean and deviation over all else."""
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


def normalise(vae: nn.Module, seed: int) -> None:
    """Fold the latents' mean and deviation over a dozen of the scenes that the U-Net is to learn into the autoencoder."""
    images = np.stack([scenes.sample(seed + 1000, index)[1] for index in range(12)])
    fold(vae, *statistics(encode(vae, torch.from_numpy(images * 2 - 1).contiguous(memory_format=torch.channels_last))))


@torch.no_grad()
def fold(vae: nn.Module, mean: Tensor, deviation: Tensor) -> None:
    """Make the latents (z - mean) / deviation, and have the decoder's first convolution undo it.

    Exact but for the decoder's clamp, tanh(z / 3) * 3, which then acts on the normalised values, and for the zero-padded border.
    """
    last, first = vae.encoder.layers[-1], vae.decoder.layers[0]
    last.weight.div_(deviation[:, None, None, None])
    last.bias.sub_(mean).div_(deviation)
    first.bias.add_((first.weight * mean[None, :, None, None]).sum((1, 2, 3)))
    first.weight.mul_(deviation[None, :, None, None])


def load(path: Path) -> nn.Module:
    """The autoencoder from a file that `train` wrote."""
    vae = build()[2]
    vae.load_state_dict(load_file(path))
    return vae.to(memory_format=torch.channels_last)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="file to write, diffusers' keys in float32; the log goes beside it")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop in about this time")
    parser.add_argument("--resume", type=Path, help="start from this file instead of from random weights")
    parser.add_argument("--decoder", action="store_true", help="with --resume: train the decoder alone")
    options = parser.parse_args()
    train(options.steps, options.batch, options.seed, options.out, minutes=options.minutes, resume=options.resume,
          decoder=options.decoder)


if __name__ == "__main__":
    main()
