"""Chest distillation: Stable Diffusion 2 tuned on MIMIC-CXR, with the text encoder frozen or learning.

Dombrowski, Reynaud, Müller, Baugh and Kainz, Trade-offs in Fine-tuned Diffusion Models Between Accuracy and Interpretability, AAAI
2024, https://arxiv.org/abs/2303.17908; the settings from its code, https://github.com/MischaD/chest-distillation.
"""

from __future__ import annotations

from ..preset import Preset, publish

SOURCE = "Dombrowski et al., Trade-offs in Fine-tuned Diffusion Models Between Accuracy and Interpretability, AAAI 2024"
OPTIONS = {"optimizer": "AdamW", "weight_decay": 1e-2, "lr": 5e-5, "schedule": "constant", "steps": 60_000, "batch": 16, "ema": 0.9999,
           "size": 512, "posterior": "sample"}
SAMPLING = {"steps": 75, "guidance": 4.0, "size": 512}
FROZEN, LEARNING = {"parts": "unet"}, {"parts": "unet+text-encoder", "lr_text_encoder": 5e-5}
NOTES = (
    "The study's base is the 512 px one of Stable Diffusion 2, which predicts noise, and its captions are the impressions of the "
    "reports: read them with the data. The batch is that of one process; the study ran sixteen (256 images a step). Left at our "
    "default: precision (it used fp16) and the solver (it used PLMS, which we have not). Its moving average was of the U-Net alone; "
    "ours is of all that is trained.")


def _preset(name: str, title: str, config: dict, dropout: float, notes: str = "") -> Preset:
    return Preset(name=f"chest-distillation/{name}", title=title, source=SOURCE, method="full", bases=("sd2",), prediction="epsilon",
                  notes=f"{notes} {NOTES}".strip(), config=config, options={**OPTIONS, "caption_dropout": dropout}, sampling=SAMPLING)


UNCONDITIONAL = "The guidance of 4 is that of its settings for every model, though this one never saw an image without its caption."

publish(
    _preset("frozen", "Text encoder frozen", FROZEN, 0.0, UNCONDITIONAL),
    _preset("frozen-unconditional", "Text encoder frozen, 30 % unconditional", FROZEN, 0.3),
    _preset("learnable", "Text encoder learning", LEARNING, 0.0, UNCONDITIONAL),
    _preset("learnable-unconditional", "Text encoder learning, 30 % unconditional", LEARNING, 0.3),
)
