"""How to train, whatever the method: length, optimiser, precision, data treatment, pictures and checkpoints on the way."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import option

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class TrainOptions:
    """Each field is a widget of the training node, a flag of ``medtune train`` and a line of the adapter's header."""

    steps: int = option(500, "Updates of the weights.", low=1, high=10_000_000)
    batch: int = option(4, "Images a step; no more than the data set shows in an epoch. 0 takes the largest power of two that fits "
                        "into memory.", low=0, high=4096)
    accumulation: int = option(1, "Batches summed up for one update: a larger batch in the memory of a small one.", low=1,
                               high=4096, advanced=True)
    lr: float = option(0.0, "Learning rate; 0 takes the method's own.", low=0, high=10, step=1e-6)
    optimizer: str = option("AdamW", "A class of torch.optim by name, such as AdamW, Adam, SGD, RAdam or Adafactor; or, with a "
                            "quarter of the state, of bitsandbytes, where that is installed: AdamW8bit, Adam8bit, Lion8bit.",
                            advanced=True)
    weight_decay: float = option(1e-2, "Weight decay, where the optimiser has one.", low=0, high=1, step=1e-3, advanced=True)
    schedule: str = option("constant", "Learning rate over the steps, after the warm-up.",
                           choices=("constant", "cosine", "linear"))
    warmup: int = option(0, "Steps over which the learning rate rises from 0.", low=0, high=1_000_000)
    clip: float = option(1.0, "Largest norm of the gradient; 0 does not clip.", low=0, high=1e6, step=0.1, advanced=True)
    precision: str = option("fp32", "Number format of the computation; weights stay float32. bf16 needs a recent processor or "
                            "GPU, fp16 a GPU.", choices=("fp32", "bf16", "fp16"))
    gradient_checkpointing: bool = option(False, "Recompute activations in the backward pass: less memory, more time.",
                                          advanced=True)
    ema: float = option(0.0, "Decay of the moving average of the weights, which is then what is saved; 0 keeps none.", low=0,
                        high=0.999999, step=1e-4, advanced=True)
    seed: int = option(0, "Seed of the order, the noise and the initial values.", low=0, high=MAX_SEED)
    size: int = option(512, "Side of the images in pixels; a multiple of 64.", low=64, high=2048, step=64)
    fit: str = option("crop", "How an image becomes a square: the middle cut out, or black added.",
                      choices=("crop", "pad", "none"))
    flips: bool = option(False, "Mirror half of the images left to right. Not for findings that have a side.")
    posterior: str = option("mode", "The autoencoder's latent: its mode, or a new sample at each step.",
                            choices=("mode", "sample"), advanced=True)
    caption_dropout: float = option(0.1, "Share of captions left out, so that sampling with guidance works.", low=0, high=1,
                                    step=0.01)
    long_captions: str = option("cut", "A caption over the text encoder's 77 tokens is cut and reported, or refused.",
                                choices=("cut", "refuse"))
    cache: str = option("memory", "Where latents and text states are kept; disk serves later runs too.",
                        choices=("memory", "disk"))
    sample_every: int = option(0, "Steps between preview pictures, with one more at the end; 0 makes none.", low=0, high=10_000_000)
    sample_prompts: str = option("", "Prompts of the preview pictures, one a line; empty takes the data set's first captions.",
                                 multiline=True)
    sample_steps: int = option(20, "Sampling steps of a preview picture.", low=1, high=1000, advanced=True)
    sample_cfg: float = option(7.5, "Guidance scale of the preview pictures; 1 switches guidance off.", low=1, high=50,
                               step=0.5, advanced=True)
    checkpoint_every: int = option(100, "Steps between checkpoints that a killed run resumes from; 0 writes one only when "
                                   "interrupted.", low=0, high=10_000_000)
    tensorboard: bool = option(False, "Log to TensorBoard in the run's folder.", advanced=True)
    compile: bool = option(False, "Compile the U-Net by torch.compile: minutes at the start, faster steps afterwards. Needs a C++ "
                           "compiler, on a GPU also triton.", advanced=True)
    channels_last: str = option("auto", "Keep the U-Net's weights in channels-last layout: auto does so on a GPU in bf16 or fp16.",
                                choices=("auto", "on", "off"), advanced=True)


# What changes nothing in the adapter that comes out: two requests that differ only here share one run.
INCIDENTAL = ("cache", "checkpoint_every", "tensorboard")
