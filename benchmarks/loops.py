"""The training loops that are measured against each other, each run as `python loops.py JOB`, JOB being JSON (see `main`).

`ours` is MedTune's own trainer through `train`. The others were written for this benchmark, after the descriptions in their
docstrings; all work on the same networks, images, captions and learning rates.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from medtune.data.source import read_records
from medtune.training.base import Base, load_base
from medtune.training.loop import train
from medtune.training.method import METHODS, Method
from medtune.training.options import TrainOptions
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset
from turns import Turns

ENDLESS = 1_000_000
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def ours(job: dict[str, Any], base: Base, method: Method, turns: Turns) -> None:
    """MedTune: latents and text states cached, gradients clipped, every loss logged."""
    options = TrainOptions(steps=ENDLESS, batch=job["batch"], size=job["size"], cache=job["cache"], precision=job["precision"],
                           compile=job["compile"], caption_dropout=0.1, checkpoint_every=0)
    started = []

    def on_step(info: Any) -> None:
        if info.phase != "train":
            return
        if not started:  # the caches are full, everything is set up
            started.append(True)
            turns.ready(trained=method.count(base))
        else:
            turns.step()

    train(base, method, read_records(job["data"])[:job["images"]], options, on_step, runs=job["runs"], device=job["device"])


def bare(job: dict[str, Any], base: Base, method: Method, turns: Turns) -> None:
    """The limit: forward, backward and fused AdamW on inputs that lie ready on the device; nothing is drawn, clipped or logged."""
    method.attach(base, torch.Generator().manual_seed(0))
    base.to(job["device"])
    weights, batch, side = list(method.named(base).values()), job["batch"], job["size"] // 8
    optimizer = torch.optim.AdamW(weights, lr=method.facts.lr, weight_decay=1e-2, fused=True)
    with torch.no_grad():
        states = base.encode_prompts([record.caption for record in read_records(job["data"])[:batch]])
    base.vae = base.text_encoder = None
    base.unet.train()
    latents, noise = torch.randn(2, batch, 4, side, side, generator=torch.Generator().manual_seed(0)).to(base.device)
    timesteps = torch.randint(1000, (batch,), device=base.device)
    inputs = (latents + noise) / 2**0.5
    turns.ready(trained=sum(weight.numel() for weight in weights))
    while True:
        with torch.autocast(base.device.type, torch.bfloat16, enabled=job["precision"] == "bf16"):
            predicted = base.unet(inputs, timesteps, encoder_hidden_states=states).sample
        loss = mse_loss(predicted.float(), noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        turns.step()


class Images(Dataset):
    """Images (3, S, S) in [0, 1] with token ids, read and scaled anew each time, over and over: an epoch never ends."""

    def __init__(self, job: dict[str, Any], base: Base):
        from torchvision import transforms

        self.records = read_records(job["data"])[:job["images"]]
        self.ids, lengths = base.tokens([record.caption for record in self.records])
        self.attention = torch.arange(self.ids.shape[1]) < torch.tensor(lengths)[:, None]
        self.scale = transforms.Compose([transforms.Resize(job["size"]), transforms.CenterCrop(job["size"]), transforms.ToTensor()])

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        from PIL import Image

        index %= len(self.records)
        image = Image.open(self.records[index].image).convert("RGB")
        return {"image": self.scale(image), "ids": self.ids[index], "attention": self.attention[index].long()}


def _accelerator(job: dict[str, Any]) -> Any:
    from accelerate import Accelerator

    return Accelerator(mixed_precision="bf16" if job["precision"] == "bf16" else "no", cpu=job["device"] == "cpu")


def _noise(latents: Tensor, scheduler: Any) -> tuple[Tensor, Tensor, Tensor]:
    noise = torch.randn_like(latents)
    timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
    return noise, timesteps, scheduler.add_noise(latents, noise, timesteps)


def _scheduler(base: Base) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config({key: value for key, value in base.scheduler_config.items() if not key.startswith("_")})


def pressure(job: dict[str, Any], base: Base, method: Method, turns: Turns) -> None:
    """Pixels Under Pressure as its README starts it (https://github.com/tehraninasab/PixelUPressure, scripts/*.sh), by description.

    Batch 4, AdamW with decay 1e-2 and a constant rate; images read, scaled and tokenised by worker processes; the autoencoder and
    the text encoder, with its attention mask, run in every step; LoRA is peft's of rank 8 and alpha 16 on the attention, with
    unclipped gradients, full fine-tuning is clipped at 1; the loss is waited for. Its fp16 and its accumulation of 4 are left out
    for all alike, and its 4 workers are as many as there are cores.
    """
    from peft import LoraConfig, get_peft_model

    accelerator, scheduler, lora = _accelerator(job), _scheduler(base), method.name == "lora"
    base.unet.requires_grad_(True)
    adapter = LoraConfig(r=job["config"].get("rank", 8), lora_alpha=16, target_modules=ATTENTION)
    unet = get_peft_model(base.unet, adapter) if lora else base.unet
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW([{"params": weights, "lr": method.facts.lr, "weight_decay": 1e-2}])
    loader = DataLoader(Images(job, base), batch_size=job["batch"], num_workers=torch.get_num_threads())
    base.device = accelerator.device
    unet, base.text_encoder, base.vae, optimizer, loader = accelerator.prepare(unet, base.text_encoder, base.vae, optimizer, loader)
    unet.train()
    turns.ready(trained=sum(weight.numel() for weight in weights))
    total = 0.0
    for batch in loader:
        with accelerator.accumulate(unet):
            latents = base.encode_images(batch["image"], sample=True)
            noise, timesteps, noisy = _noise(latents, scheduler)
            states = base.text_encoder(batch["ids"], attention_mask=batch["attention"])[0]
            loss = mse_loss(unet(noisy, timesteps, states).sample, noise, reduction="none").mean()
            accelerator.backward(loss)
            if not lora:
                accelerator.clip_grad_norm_(list(unet.parameters()), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach().item()
        turns.step()


def diffusers(job: dict[str, Any], base: Base, method: Method, turns: Turns) -> None:
    """diffusers' train_text_to_image_lora example, by description: its LoRA is of alpha = rank with Gaussian start on the attention.

    Images are read and scaled in the process itself; the autoencoder and the text encoder run in every step; gradients are clipped
    at 1; the loss is gathered for the log and shown at each step.
    """
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig
    from tqdm import tqdm

    accelerator, scheduler, unet = _accelerator(job), _scheduler(base), base.unet
    rank = job["config"].get("rank", 8)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENTION))
    base.to(accelerator.device)
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=method.facts.lr, weight_decay=1e-2)
    rates = get_scheduler("constant", optimizer)
    loader = DataLoader(Images(job, base), batch_size=job["batch"])
    unet, optimizer, loader, rates = accelerator.prepare(unet, optimizer, loader, rates)
    unet.train()
    turns.ready(trained=sum(weight.numel() for weight in weights))
    progress = tqdm(loader)
    for batch in progress:
        with accelerator.accumulate(unet):
            latents = base.encode_images(batch["image"], sample=True)
            noise, timesteps, noisy = _noise(latents, scheduler)
            states = base.text_encoder(batch["ids"], return_dict=False)[0]
            predicted = unet(noisy, timesteps, states, return_dict=False)[0]
            loss = mse_loss(predicted.float(), noise.float(), reduction="mean")
            gathered = accelerator.gather(loss.repeat(job["batch"])).mean().item()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        progress.set_postfix(step_loss=loss.detach().item(), mean=gathered, lr=rates.get_last_lr()[0])
        turns.step()


LOOPS = {loop.__name__: loop for loop in (ours, bare, pressure, diffusers)}


def main() -> None:
    """Run a job: loop, method, config (of the method), base, data (an image set), images (how many of it), batch, size, cache,
    precision, compile, device, threads, runs (a folder)."""
    job = json.loads(sys.argv[1])
    turns = Turns()
    torch.set_num_threads(job["threads"])
    entry = METHODS[job["method"]]
    LOOPS[job["loop"]](job, load_base(job["base"]), entry(entry.Config(**job["config"])), turns)


if __name__ == "__main__":
    main()
