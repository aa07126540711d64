"""Pixels Under Pressure: eleven ways to fine-tune Stable Diffusion 1.5 on CheXpert at 512 px.

TehraniNasab, Kumar and Arbel 2025, https://arxiv.org/abs/2508.14931; code: https://github.com/tehraninasab/PixelUPressure. Learning
rates, optimiser, ranks, captions and sampling from the paper; batch and accumulation from the scripts of its code.
"""

from __future__ import annotations

from typing import Any

from ..preset import Preset, publish

SOURCE = "TehraniNasab et al., Pixels Under Pressure: Exploring Fine-Tuning Paradigms for Foundation Models in High-Resolution " \
         "Medical Imaging, 2025"
OPTIONS = {"optimizer": "AdamW", "weight_decay": 1e-2, "schedule": "constant", "size": 512, "posterior": "sample", "accumulation": 4}
SAMPLING = {"steps": 50, "guidance": 7.5, "size": 512}
NOTES = (
    "Batch and accumulation are those of one process; the study ran four. Left at our default: steps (its runs went on for up to 101 "
    "epochs of 20,000 images{}), precision (it used fp16), the solver, and fit (it squashed images into squares; we cut). Better than "
    "its code, on purpose: a tenth of the captions is left out, since images are drawn with guidance (caption_dropout=0 does as it "
    "did), and gradients are clipped for every method.")
DRAWN_AT = {"unet": 45, "unet+text-encoder": 20, "unet+vae": 25, "lora": 85, "dora": 45, "bitfit": 95}  # epochs


def _preset(name: str, title: str, method: str, *, lr: float, config: dict[str, Any], objective: dict[str, Any] | None = None,
            notes: str = "", batch: int = 4) -> Preset:
    drawn = f", and its images were drawn after epoch {DRAWN_AT[name]}" if name in DRAWN_AT else ""
    return Preset(name=f"pixels-under-pressure/{name}", title=title, source=SOURCE, method=method, bases=("sd1",),
                  notes=f"{notes} {NOTES.format(drawn)}".strip(), config=config, options={**OPTIONS, "lr": lr, "batch": batch},
                  objective=objective or {}, sampling=SAMPLING, caption="chest-xray-eight")


def _full(parts: str, title: str, lr: float, notes: str = "") -> Preset:
    objective = {"reconstruction_weight": 1.0} if "vae" in parts else {}
    return _preset(parts, title, "full", lr=lr, config={"parts": parts}, objective=objective, notes=notes)


RATES = "The rate is that of the first part; the others learn at the study's proportion to it ({}), whatever the run's rate."
PAIR = "The scripts of its code give the text encoder 5e-6 here, the paper 1e-6."
DELTA = ("The paper names DiffFit, and this is DiffFit (Xie et al. 2023); its code trains a full difference of every Linear and Conv "
         "weight instead, which is here the method 'delta'.")
LOW_RANK = {"rank": 8, "alpha": 16.0}

publish(
    _full("unet", "U-Net", 1e-5),
    _full("text-encoder", "Text encoder", 5e-6),
    _full("vae", "Autoencoder", 1e-6),
    _full("unet+text-encoder", "U-Net and text encoder", 1e-5, RATES.format("text encoder 1e-6")),
    _full("unet+vae", "U-Net and autoencoder", 1e-5, RATES.format("autoencoder 1e-6")),
    _full("text-encoder+vae", "Text encoder and autoencoder", 1e-6, f"{RATES.format('autoencoder 1e-6')} {PAIR}"),
    _full("unet+text-encoder+vae", "U-Net, text encoder and autoencoder", 1e-5, RATES.format("text encoder and autoencoder 1e-6")),
    _preset("lora", "LoRA on the U-Net", "lora", lr=1e-4, config=LOW_RANK),
    _preset("dora", "DoRA on the U-Net", "dora", lr=1e-4, config=LOW_RANK, batch=8),
    _preset("bitfit", "BitFit on the U-Net", "bitfit", lr=1e-4, config={}, batch=8),
    _preset("difffit", "DiffFit on the U-Net", "difffit", lr=1e-4, config={}, notes=DELTA, batch=8),
)
