"""One training under way: caches, steps, pictures, checkpoints, and the adapter in the end."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.record import Record
from ..errors import ConfigError, MedTuneError, TrainingStopped, listing
from ..files import cache_folder
from . import finish, machine, state
from .cache import blank_channels, cache_latents, cache_text
from .draws import Draw, Draws, Order, derive_seed, generator
from .ema import MovingAverage
from .log import Board, LossLog
from .objective import cumulative_alphas, denoising_loss, drop_captions
from .optimiser import build_optimizer, build_schedule
from .options import TrainOptions
from .preview import Previews, choose_prompts
from .progress import Speed, StepInfo, smooth
from .run import Run

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .base import Base
    from .method import Method

LOGGER = logging.getLogger(__name__)


class Trainer:
    """Brings one run to its end, from its checkpoint where there is one."""

    def __init__(self, base: Base, method: Method, records: Sequence[Record], options: TrainOptions, run: Run, *,
                 accelerator: Accelerator, on_step: Callable[[StepInfo], None], notices: list[str]):
        self.base, self.method, self.records, self.options, self.run = base, method, list(records), options, run
        self.accelerator, self.on_step, self.notices = accelerator, on_step, notices
        self.lr = options.lr or method.facts.lr
        self.speed, self.board = Speed(), None
        self.updating = False   # the weights are between two steps' states
        self.saved = 0          # the step of the checkpoint
        self.trained_parts: list[torch.nn.Module] = []

    def run_to_the_end(self) -> list[float]:
        """Train what is left to train and write the adapter; the loss of each step."""
        home = self.base.device
        self.base.device = self.accelerator.device
        try:
            self._attach()
            self._fill_caches()
            self._prepare()
            self._begin()
            self._advance()
        finally:
            for module in self.trained_parts:
                machine.release(module, self.accelerator)
            self._go_home(home)
        return self.log.losses

    def _go_home(self, device: torch.device) -> None:
        """Put every part back to where the base was."""
        self.base.device = device
        for part in (self.base.unet, self.base.text_encoder, self.base.vae):
            if part is not None:
                part.to(device)

    def _attach(self) -> None:
        parts = self.method.trains(self.base)
        self.trained_parts = [getattr(self.base, part) for part in sorted(parts)]
        if "vae" in parts:
            raise ConfigError(f"method {self.method.name!r} trains the autoencoder, and this objective works on its frozen latents")
        self.reads_text = "text_encoder" in parts
        self.method.attach(self.base, generator(self.options.seed, "attach"))

    def _fill_caches(self) -> None:
        """Latents and text states; each encoder is on the device only while it works."""
        options, device = self.options, self.accelerator.device
        folder = cache_folder() / "training" if options.cache == "disk" else None
        if self.base.vae is not None:
            self.base.vae.to(device)
        self.latents = cache_latents(self.base, self.records, folder, size=options.size, fit=options.fit, flips=options.flips,
                                     posterior=options.posterior, on_progress=self._report_cache)
        extra = blank_channels(self.base, self.latents.shape)
        self.extra = None if extra is None else extra.to(device)
        self.base.vae.to("cpu")
        prompts = choose_prompts(options, self.records)
        if self.reads_text:
            self.encode = self.base.encode_prompts
        else:
            if self.base.text_encoder is not None:
                self.base.text_encoder.to(device)
            self.text = cache_text(self.base, [*(record.caption for record in self.records), *prompts], folder)
            self.base.text_encoder.to("cpu")
            self.encode = lambda captions: self.text.batch(captions).to(device, non_blocking=True)
        self.prompts = prompts

    def _report_cache(self, done: int, total: int) -> None:
        self.on_step(StepInfo(done, total, "cache"))

    def _prepare(self) -> None:
        """Optimiser, schedule, moving average, and all that gives a step its numbers."""
        options, base, accelerator = self.options, self.base, self.accelerator
        if options.gradient_checkpointing:
            for module in self.trained_parts:
                (getattr(module, "enable_gradient_checkpointing", None) or module.gradient_checkpointing_enable)()
        base.unet.to(accelerator.device)
        for module in self.trained_parts:
            accelerator.prepare(module)
            module.train()
        self.named = self.method.named(base)
        optimizer = build_optimizer(self.method.parameters(base), options, self.lr)
        self.optimizer, self.schedule = accelerator.prepare(optimizer, build_schedule(optimizer, options))
        self.average = MovingAverage(self.named, options.ema) if options.ema else None
        self.state = state.State(self.named, self.optimizer, self.schedule, accelerator.scaler, self.average,
                                 device=accelerator.device.type)
        self.alphas = cumulative_alphas(base.scheduler_config).to(accelerator.device)
        self.draws = Draws(Order([record.repeats for record in self.records], options.seed), options.batch * options.accumulation,
                           self.latents.shape, len(self.alphas), options.seed, flips=options.flips,
                           caption_dropout=options.caption_dropout, posterior=options.posterior == "sample")
        self.previews = Previews(base, self.prompts, self.encode, options, self.run.samples, shape=self.latents.shape,
                                 average=self.average, extra=self.extra)

    def _begin(self) -> None:
        """Start anew, or go on from the checkpoint."""
        if self.run.checkpoint.exists():
            made_on = state.load(self.run.checkpoint, self.state)
            self.saved = self.state.step
            if made_on != self.state.device:
                self.notices.append(f"begun on {made_on} and resumed on {self.state.device} at step {self.saved}: not bit-identical "
                                    "to a run on one device")
        self.log = LossLog(self.run.losses, self.state.step)
        if self.options.tensorboard:
            self.board = Board(self.run.board, self.state.step)
        self.run.begin(lr=self.lr, trained=self.method.count(self.base), images=len(self.records), notices=self.notices,
                       base_ref=self.base.ref, device=self.state.device, **finish.incidental(self.options))

    def _advance(self) -> None:
        try:
            if self.state.step:
                self._draw_previews(missing=True)
            while self.state.step < self.options.steps:
                self._step()
                self._draw_previews()
                self._save_if_due()
            self.on_step(StepInfo(self.state.step, self.options.steps, "save", smoothed=smooth(self.log.losses)))
            finish.write(self)
        except BaseException:
            self._keep()
            raise
        finally:
            self.log.close()
            if self.board is not None:
                self.board.close()

    # -- one step

    def _step(self) -> None:
        began, options = time.perf_counter(), self.options
        draw = self.draws(self.state.step)
        torch.manual_seed(derive_seed(options.seed, "dropout", self.state.step))  # for layers that draw from the global generator
        errors = []
        for start in range(0, len(draw.indices), options.batch):
            with self.accelerator.accumulate(*self.trained_parts):
                error = self._errors(draw, slice(start, start + options.batch))
                self.accelerator.backward(error.mean())
                errors.append(error.detach())
        norm = self.accelerator.clip_grad_norm_(list(self.named.values()), options.clip or math.inf)
        *errors, norm = torch.cat([*errors, norm.float().view(1)]).tolist()  # the step's only wait for the device
        self._check_finite(draw, errors, norm)
        loss, lr = sum(errors) / len(errors), self.schedule.get_last_lr()[0]
        self.log.append(self.state.step + 1, loss, lr, norm)
        self._update()
        seconds = time.perf_counter() - began
        self.state.seconds += seconds
        self._report(loss, lr, norm, seconds)

    def _errors(self, draw: Draw, some: slice) -> Tensor:
        """The loss of each image (B,) of a part of the step's images."""
        device, indices = self.accelerator.device, draw.indices[some]
        latents = self.latents.batch(indices, draw.flipped[some], None if draw.posterior is None else draw.posterior[some])
        states = self.encode(drop_captions([self.records[index].caption for index in indices], draw.dropped[some]))
        extra = None if self.extra is None else self.extra.expand(len(indices), -1, -1, -1)
        return denoising_loss(self.base.unet, latents.to(device, non_blocking=True), states,
                              draw.noise[some].to(device, non_blocking=True), draw.timesteps[some].to(device), alphas=self.alphas,
                              prediction=self.base.prediction, extra_channels=extra)

    def _check_finite(self, draw: Draw, errors: list[float], norm: float) -> None:
        """Raise TrainingStopped for a loss or gradient that is not finite, before it gets into the weights."""
        spoiled = [index for index, error in zip(draw.indices, errors, strict=True) if not math.isfinite(error)]
        if not spoiled and (math.isfinite(norm) or self.accelerator.scaler is not None):  # the scaler skips such a gradient
            return
        what = "the loss" if spoiled else "the gradient"
        images = listing([self.records[index].image for index in dict.fromkeys(spoiled or draw.indices)], 8)
        raise TrainingStopped(f"{what} is not finite at step {self.state.step + 1}, for: {images}. Lower the learning rate (it is "
                              f"{self.schedule.get_last_lr()[0]:g}){self._other_advice()}, and look at these images. "
                              f"The last good state is kept in {self.run.folder}")

    def _other_advice(self) -> str:
        options = self.options
        return "".join(text for text, fits in [(", add a warm-up", not options.warmup), (", clip the gradient", not options.clip),
                                               (", use bf16 or fp32", options.precision == "fp16"),
                                               (", use fp32", options.precision == "bf16")] if fits)

    def _update(self) -> None:
        with _uninterrupted():
            self.updating = True
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.state.step += 1
            if self.average is not None:
                self.average.update(self.state.step)
            self.updating = False

    def _report(self, loss: float, lr: float, norm: float, seconds: float) -> None:
        self.speed.add(seconds)
        rate, step, total = self.speed.rate(), self.state.step, self.options.steps
        if self.board is not None:
            self.board.add(step, loss=loss, lr=lr, grad_norm=norm)
        self.on_step(StepInfo(step, total, "train", loss, smooth(self.log.losses), lr, norm, rate, (total - step) / rate))

    # -- between steps

    def _draw_previews(self, missing: bool = False) -> None:
        """Pictures, where this step is one for them; with ``missing`` only if an interruption came before them."""
        step, every = self.state.step, self.options.sample_every
        if not every or (step % every and step < self.options.steps):
            return
        if missing and any(self.run.samples.glob(f"step-{step:06d}-*.png")):
            return
        drawn = self.previews.draw(step)
        if len(drawn) < len(self.prompts):
            self.notices.append(f"{len(self.prompts) - len(drawn)} preview pictures at step {step} were not finite and were "
                                "left out")
        for index, (path, image) in enumerate(drawn):
            if self.board is not None:
                self.board.add_image(step, f"sample/{index}", image)
            self.on_step(StepInfo(step, self.options.steps, "sample", smoothed=smooth(self.log.losses), sample=path))

    def _save_if_due(self) -> None:
        step, every = self.state.step, self.options.checkpoint_every
        if every and step % every == 0 and step < self.options.steps:
            self.on_step(StepInfo(step, self.options.steps, "save", smoothed=smooth(self.log.losses)))
            self._save()

    def _save(self) -> None:
        """Write a checkpoint. Raises TrainingStopped instead of replacing a good one by one that is not finite."""
        self.check_weights()
        self.log.sync()
        state.save(self.run.checkpoint, self.state)
        self.saved = self.state.step

    def check_weights(self) -> None:
        """Raise TrainingStopped when a weight is not finite."""
        spoiled = [name for name, weight in self.named.items() if not torch.isfinite(weight).all()]
        if spoiled:
            raise TrainingStopped(f"{len(spoiled)} weights are not finite after step {self.state.step}: {listing(spoiled)}. Lower the "
                                  f"learning rate (it is {self.lr:g}){self._other_advice()}. The last good state is that of step "
                                  f"{self.saved}, in {self.run.folder}")

    def _keep(self) -> None:
        """Keep the state of an interrupted run, where it is whole and ahead of the checkpoint."""
        if self.updating or self.state.step == self.saved:
            return
        try:
            self._save()
        except MedTuneError as error:
            LOGGER.error("The run goes on from step %d: %s", self.saved, error)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C within the block takes effect after it, so that no state is kept half updated."""
    former = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if not callable(former):
        yield
        return
    pressed = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
    if pressed:
        signal.raise_signal(signal.SIGINT)
