"""Pre-train the embedded base's U-Net and text encoder together on the captioned scenes of `scenes`.

    python -m medtune.training.embedded.pretrain AUTOENCODER.safetensors LATENTS.safetensors OUT.safetensors --steps 1200
    torchrun --nproc-per-node 2 -m medtune.training.embedded.pretrain ...      one thread a process: better on a busy machine

The autoencoder encodes each scene once, into LATENTS (made first, and reused when it is there). The objective is epsilon MSE with
min-SNR weights (Hang et al., ICCV 2023) that favour the noisiest steps; a tenth of the captions is dropped. Coarse noise: what is
large in an image leaks through the noisiest step, so that a U-Net trained with white noise alone reads brightness and place there
instead of making them from the prompt, and samples miss them.
"""

import argparse
import copy
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from . import autoencoder, scenes
from .architecture import SCHEDULER, build, from_ldm, to_ldm

COARSE_NOISE = 0.3
COARSE_CELLS = (1, 2, 4, 8)
DROPPED_CAPTIONS = 0.1
END = 49407  # CLIP's end token, which pads the captions, too
SNR_LIMIT = 5.0
NOISE_LIMIT = 200.0
EMA_DECAY = 0.995
SHIFT = 3 / 64


def tokenize(captions: list[str]) -> Tensor:
    """Token ids (N, 77) in CLIP's vocabulary, padded with the end token as SD1 does; longer captions are refused."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    rows = []
    for caption in captions:
        ids = tokenizer.encode(caption)
        if len(ids) > 75:
            raise ValueError(f"caption of {len(ids)} tokens, at most 75 are allowed: {caption!r}")
        rows.append([49406, *ids, *[END] * (76 - len(ids))])
    return torch.tensor(rows)


def encode_scenes(vae: Path, out: Path, *, seed: int, count: int, size: int, objects: int = 3, minutes: float = math.inf) -> None:
    """Write the latents (N, 4, size / 8, size / 8) and captions of `count` scenes, or of as many as the time allows.

    Every core encodes its share.
    """
    begun, latents, captions = time.monotonic(), [], []
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        indices = list(islice(scenes.of_few_objects(seed, objects), count))
        shares = [indices[start : start + 8] for start in range(0, count, 8)]
        for encoded in pool.map(encode_some, repeat(vae), repeat(seed), shares, repeat(size)):
            for caption, each in encoded:
                captions.append(caption)
                latents.append(torch.from_numpy(each))
            if time.monotonic() - begun > 60 * minutes:
                pool.shutdown(cancel_futures=True)
                break
    stacked = torch.stack(latents).contiguous()
    mean, deviation = autoencoder.statistics(stacked)
    print(f"{len(latents)} scenes; latents' mean {mean.tolist()}, deviation {deviation.tolist()}", file=sys.stderr)
    save_file({"latents": stacked}, out, metadata={"captions": json.dumps(captions)})


def encode_some(path: Path, seed: int, indices: list[int], size: int) -> list[tuple[str, np.ndarray]]:
    """Caption and latents (4, size / 8, size / 8) of these scenes."""
    vae, encoded = autoencoder.load(path), []
    for index in indices:
        caption, image = scenes.sample(seed, index, size)
        pixels = torch.from_numpy(image)[None] * 2 - 1
        encoded.append((caption, autoencoder.encode(vae, pixels.contiguous(memory_format=torch.channels_last))[0].numpy()))
    return encoded


def train(latents: Tensor, captions: list[str], vae: nn.Module, options: argparse.Namespace) -> None:
    """Train, from scratch or from the weights in `options.resume`, with the rates beginning again.

    Every 25 steps the averaged weights are written to `options.out` as a whole base in LDM layout.
    """
    torch.manual_seed(options.seed)
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    generator = torch.Generator().manual_seed(options.seed + 1000 * rank)
    unet, text_encoder, _ = build()
    if options.resume:
        for network, state in zip((unet, text_encoder), from_ldm(load_file(options.resume)), strict=False):
            network.load_state_dict({key: value.float() for key, value in state.items()})
    else:
        start(unet)
    if options.fresh_text or not options.resume:
        start_text(text_encoder)
    model = nn.ModuleList([unet, text_encoder]).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimisers = optimiser(unet, text_encoder)
    tokens, nothing = tokenize(captions), tokenize([""])
    log = options.out.with_suffix(f".{rank}.jsonl" if rank else ".jsonl").open("w", buffering=1)
    begun, step, done, total = time.monotonic(), 0, 0.0, 0.0
    while done < 1:
        autoencoder.set_rate(optimisers, min(1, (step + 1) / 30) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done)))
        picked = torch.randint(len(latents), (options.batch,), generator=generator)
        dropped = torch.rand(options.batch, 1, generator=generator) < DROPPED_CAPTIONS
        states = text_encoder(torch.where(dropped, nothing, tokens[picked])).last_hidden_state
        loss, plain = objective(unet, shifted(latents[picked], generator), states, generator)
        loss.backward()
        share_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in optimisers:
            each.step()
            each.zero_grad()
        follow(average, model, min(EMA_DECAY, (1 + step) / (10 + step)))
        total += loss.item()
        log.write(json.dumps({"step": step, "loss": loss.item(), "mse": plain, "seconds": round(time.monotonic() - begun)}) + "\n")
        step += 1
        done = agreed(max(step / options.steps, (time.monotonic() - begun) / 60 / options.minutes))
        if rank == 0 and (step % 25 == 0 or done >= 1):
            save_file(to_ldm(*average, vae), options.out, metadata={"format": "pt"})
            print(f"step {step} ({done:.0%}) mean loss {total / ((step - 1) % 25 + 1):.4f}", file=sys.stderr, flush=True)
            total = 0.0


def share_gradients(model: nn.Module) -> None:
    """Average the gradients over the processes, where there are several."""
    if distributed.is_initialized():
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([each.flatten() for each in gradients])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for each, mean in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            each.copy_(mean.view_as(each))


def agreed(done: float) -> float:
    """The first process's figure, for all."""
    if not distributed.is_initialized():
        return done
    shared = torch.tensor([done], dtype=torch.float64)
    distributed.broadcast(shared, 0)
    return shared.item()


def shifted(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Each of the latents (N, 4, h, h) moved by up to a SHIFT of its side along both axes, its border repeated.

    One place is 8 pixels, the encoder's stride, so that this is what the moved image would have; captions stay true.
    """
    side = latents.shape[-1]
    reach = max(1, round(SHIFT * side))
    wide = nn.functional.pad(latents, [reach] * 4, mode="replicate")
    corners = torch.randint(2 * reach + 1, (len(latents), 2), generator=generator).tolist()
    return torch.stack([each[:, top : top + side, left : left + side] for each, (top, left) in zip(wide, corners, strict=True)])


def objective(unet: nn.Module, latents: Tensor, states: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """The weighted loss, and the plain epsilon MSE, of latents (N, 4, h, w) given text states (N, 77, 64)."""
    count = len(latents)
    alpha = signal_share()
    spread = (torch.arange(count) + torch.rand(count, generator=generator)) / count  # one time in each part of the schedule
    times = (spread * len(alpha)).long().clamp(max=len(alpha) - 1)
    noise = coarse(latents.shape, generator)
    share = alpha[times][:, None, None, None]
    predicted = unet(share.sqrt() * latents + (1 - share).sqrt() * noise, times, states).sample
    error = (predicted - noise).square().mean((1, 2, 3))
    return (error * weights(alpha[times])).mean(), error.mean().item()


def coarse(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """White noise of this shape (N, C, h, w), with noise of COARSE_NOISE added on grids of COARSE_CELLS a side."""
    noise = torch.randn(shape, generator=generator)
    for cells in COARSE_CELLS:
        grid = COARSE_NOISE * torch.randn(*shape[:2], cells, cells, generator=generator)
        noise = noise + nn.functional.interpolate(grid, shape[2:], mode="bilinear")
    return noise


def weights(alpha: Tensor) -> Tensor:
    """The weight of the epsilon error at these shares of the signal: min-SNR's, over the share.

    The division makes it the error of v, as far as NOISE_LIMIT. Without it the noisiest steps, where a prompt decides what is drawn,
    weigh next to nothing beside the others' grain, and the prompt is not learned.
    """
    snr = alpha / (1 - alpha)
    return snr.clamp(max=SNR_LIMIT) / snr * (1 / alpha).clamp(max=NOISE_LIMIT)


def signal_share() -> Tensor:
    """(1000,) the cumulated product of 1 - beta: the share of the signal's variance left at each step."""
    low, high = SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5
    return torch.cumprod(1 - torch.linspace(low, high, SCHEDULER["num_train_timesteps"]) ** 2, 0)


def start(unet: nn.Module) -> None:
    """The U-Net's residual branches and its output begin at zero."""
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if any(part in name for part in (".conv2.", ".proj_out.", "conv_out.")):
                parameter.zero_()


def start_text(text_encoder: nn.Module) -> None:
    """Begin with states that tell prompts apart.

    A word's embedding is wide and the padding's zero, so that each of the sixty padded places, which uniform cross-attention reads
    above all, begins as the mean of the words before it. With CLIP's usual narrow start all places end up alike within a few hundred
    steps, and the prompt then has no effect and no gradient.
    """
    with torch.no_grad():
        for name, parameter in text_encoder.named_parameters():
            if name.endswith("token_embedding.weight"):
                parameter.normal_(0, 1)
                parameter[END] = 0
            elif name.endswith("position_embedding.weight"):
                parameter.normal_(0, 0.1)
            elif name.endswith("v_proj.weight"):
                parameter.normal_(0, 0.25)


def optimiser(unet: nn.Module, text_encoder: nn.Module) -> list[torch.optim.Optimizer]:
    """AdamW, without decay."""
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    return [torch.optim.AdamW(parameters, lr=1.2e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's."""
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("autoencoder", type=Path, help="what `autoencoder` wrote")
    parser.add_argument("latents", type=Path, help="the scenes' latents: made when missing")
    parser.add_argument("out", type=Path, help="the base to write, in LDM layout and float16; the log goes beside it")
    parser.add_argument("--resume", type=Path, help="start from this base's U-Net and text encoder")
    parser.add_argument("--fresh-text", action="store_true", help="with --resume: the U-Net alone, with a new text encoder")
    parser.add_argument("--size", type=int, default=512, help="side of the scenes in pixels")
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--objects", type=int, default=3, help="scenes with at most so many objects: one teaches places soonest")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop training in about this time")
    parser.add_argument("--encoding-minutes", type=float, default=math.inf, help="stop encoding scenes in about this time")
    options = parser.parse_args()
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        torch.set_num_threads(1)
        distributed.init_process_group("gloo")
    vae = autoencoder.load(options.autoencoder)
    if not options.latents.exists() and os.environ.get("RANK", "0") == "0":
        encode_scenes(options.autoencoder, options.latents, seed=options.seed, count=options.scenes, size=options.size,
                      objects=options.objects, minutes=options.encoding_minutes)
    if distributed.is_initialized():
        distributed.barrier()
    with safe_open(options.latents, "pt") as file:
        latents, captions = file.get_tensor("latents"), json.loads(file.metadata()["captions"])
    train(latents, captions, vae, options)


if __name__ == "__main__":
    main()
