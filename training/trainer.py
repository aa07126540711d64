"""One training under way: caches, steps, pictures, checkpoints, and the adapter in the end."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.record import Record
from ..errors import MedTuneError, TrainingStopped, listing
from . import finish, inflate, machine, processes, state
from .batch_finder import choose_batch
from .batches import Batch, Batches
from .draws import derive_seed, generator
from .ema import MovingAverage
from .encoding import prepare
from .log import Board, LossLog
from .objective import ObjectiveOptions, cumulative_alphas, denoising_loss, reconstruction_loss, sampling_schedule, snr_weights
from .optimiser import build_optimizer, build_schedule
from .options import TrainOptions
from .prefetch import Ahead
from .preview import Previews, choose_prompts
from .prior import class_records
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
                 objective: ObjectiveOptions, accelerator: Accelerator, on_step: Callable[[StepInfo], None], notices: list[str]):
        self.base, self.method, self.records, self.options, self.run = base, method, list(records), options, run
        self.objective, self.accelerator, self.on_step, self.notices = objective, accelerator, on_step, notices
        self.lr, self.batch = options.lr or method.facts.lr, options.batch
        self.speed, self.board, self.batches = Speed(), None, None
        self.updating = False   # the weights are between two steps' states
        self.saved = 0          # the step of the checkpoint
        self.networks: list[torch.nn.Module] = []   # those that a step runs with gradients

    def run_to_the_end(self) -> list[float]:
        """Train what is left to train and write the adapter; the loss of each step."""
        home = self.base.device
        self.base.device = self.accelerator.device
        try:
            self._draw_class()
            self._attach()
            self._fill_caches()
            self._prepare()
            self._begin()
            with machine.kept_memory(self.accelerator.device):
                self._advance()
        finally:
            if self.batches is not None:
                self.batches.close()
            for module in self.networks:
                machine.release(module, self.accelerator)
            self._go_home(home)
        return self.log.losses

    def _go_home(self, device: torch.device) -> None:
        """Put every part back to where the base was."""
        self.base.device = device
        for part in (self.base.unet, self.base.text_encoder, self.base.vae):
            if part is not None:
                part.to(device)

    def _draw_class(self) -> None:
        """The images of the class, by the base as it is."""
        if self.objective.prior_weight:
            self.base.to(self.accelerator.device)
        self.class_records = class_records(self.base, self.objective, self.options.size,
                                           lambda done, total: self.on_step(StepInfo(done, total, "class")))

    def _attach(self) -> None:
        self.parts = self.method.trains(self.base)
        self.method.attach(self.base, generator(self.options.seed, "attach"))
        self.opened = inflate.open_columns(self.base) if self.objective.inflate else {}
        self.trained_parts = [getattr(self.base, part) for part in sorted(self.parts | ({"unet"} if self.opened else set()))]

    def _fill_caches(self) -> None:
        self.prompts = choose_prompts(self.options, self.records)
        self.prepared = prepare(self.base, self.records, self.class_records, self.prompts, parts=self.parts, options=self.options,
                                objective=self.objective, device=self.accelerator.device, on_progress=self._report_cache)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Text states (N, 77, d), of the cache or of the text encoder that is trained."""
        if self.prepared.text is None:
            return self.base.encode_prompts(captions)
        return self.prepared.text.batch(captions).to(self.accelerator.device, non_blocking=True)

    def _report_cache(self, done: int, total: int) -> None:
        self.on_step(StepInfo(done, total, "cache"))

    def _prepare(self) -> None:
        """Optimiser, schedule, moving average, and all that gives a step its numbers."""
        options, base, accelerator = self.options, self.base, self.accelerator
        self.networks = [*self.trained_parts, *([base.unet] if base.unet not in self.trained_parts else [])]
        for module in self.networks:
            if options.gradient_checkpointing:
                (getattr(module, "enable_gradient_checkpointing", None) or module.gradient_checkpointing_enable)()
            accelerator.prepare_model(module.to(accelerator.device), evaluation_mode=True)  # see _step: gradients are summed there
        for module in self.trained_parts:
            module.train()
        machine.arrange(base.unet, options, accelerator.device)
        self.named = self.method.named(base) | self.opened
        groups = self.method.parameters(base)
        if self.opened:
            groups.append({"name": "inpainting", "params": list(self.opened.values()), "weight_decay": 0.0})
        optimizer = build_optimizer(groups, options, self.lr)
        self.optimizer, self.schedule = accelerator.prepare(optimizer, build_schedule(optimizer, options))
        self.average = MovingAverage(self.named, options.ema) if options.ema else None
        self.state = state.State(self.named, self.optimizer, self.schedule, accelerator.scaler, self.average,
                                 device=accelerator.device.type)
        self.alphas = cumulative_alphas(base.scheduler_config, self.objective.zero_terminal_snr).to(accelerator.device)
        self.level_weights = snr_weights(self.alphas, base.prediction, self.objective) if self.objective.weighting != "none" else None
        base.scheduler_config = sampling_schedule(base.scheduler_config, self.objective.zero_terminal_snr)
        if not self.batch:
            self.batch = choose_batch(self)
            self.options = options = replace(options, batch=self.batch)
        self.batches = Ahead(self._batches_of(self.batch), options.steps)
        self.previews = Previews(base, self.prompts, self.encode, options, self.run.samples, shape=self.prepared.pictures.shape,
                                 average=self.average, extra=self.prepared.blank)

    def _batches_of(self, batch: int) -> Batches:
        return Batches(self.prepared, len(self.alphas), self.options, self.objective, batch=batch, accelerator=self.accelerator)

    def rehearse(self, batch: int) -> None:
        """A forward and backward pass of the first step with a batch of this size; nothing of it stays."""
        try:
            errors = self._errors(self._batches_of(batch)(0)[0].to(self.accelerator.device))
            self.accelerator.backward(errors.sum() / batch)
        finally:
            for weight in self.named.values():
                weight.grad = None

    def _begin(self) -> None:
        """Start anew, or go on from the checkpoint."""
        if self.run.checkpoint.exists():
            made_on = state.load(self.run.checkpoint, self.state)
            self.saved = self.state.step
            if made_on != self.state.device:
                self.notices.append(f"begun on {made_on} and resumed on {self.state.device} at step {self.saved}: not bit-identical "
                                    "to a run on one device")
        main = self.accelerator.is_main_process
        self.accelerator.wait_for_everyone()  # nobody writes before all have read
        self.log = LossLog(self.run.losses, self.state.step, write=main)
        if self.options.tensorboard and main:
            self.board = Board(self.run.board, self.state.step)
        if main:
            self.run.begin(lr=self.lr, trained=sum(weight.numel() for weight in self.named.values()), images=len(self.records),
                           notices=self.notices, batch=self.batch, base_ref=self.base.ref, device=self.state.device,
                           **finish.incidental(self.options))

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

    def products(self) -> dict[str, dict[str, Tensor]]:
        """The files of this training by kind, of the weights as they are."""
        made = self.method.products(self.base)
        return inflate.inflated_products(self.base, made, bool(self.opened)) if self.objective.inflate else made

    # -- one step

    def _step(self) -> None:
        began = time.perf_counter()
        self._seed_dropout()
        passes, errors = self.batches(self.state.step), []
        for batch in passes:
            with self.accelerator.accumulate(*self.networks):
                error = self._errors(batch.to(self.accelerator.device))
                self.accelerator.backward(error.sum() / self.batch)
                errors.append(error.detach())
        processes.sum_gradients(self.named.values(), self.accelerator)
        norm = self.accelerator.clip_grad_norm_(list(self.named.values()), self.options.clip or math.inf)
        *errors, norm = torch.cat([*errors, norm.float().view(1)]).tolist()  # the step's only wait for the device
        total = processes.total(sum(errors), self.accelerator)
        self._check_finite(passes, errors, total, norm)
        loss, lr = total / (self.batch * self.options.accumulation), self.schedule.get_last_lr()[0]
        self.log.append(self.state.step + 1, loss, lr, norm)
        self._update()
        seconds = time.perf_counter() - began
        self.state.seconds += seconds
        self._report(loss, lr, norm, seconds)

    def _seed_dropout(self) -> None:
        """For layers that draw from the global generator: processes with other images drop other values."""
        index = self.accelerator.process_index
        torch.manual_seed(derive_seed(self.options.seed, "dropout", self.state.step, *([index] if index else [])))

    def _errors(self, batch: Batch) -> Tensor:
        """The loss of each image (B,), with its weight."""
        latents, reconstruction = batch.latents, None
        if batch.images is not None:
            latents, reconstruction = self._encoded(batch)
        extra = batch.extra_channels
        if extra is None and self.prepared.blank is not None:
            extra = self.prepared.blank.expand(len(batch.indices), -1, -1, -1)
        errors = denoising_loss(self.base.unet, latents, self._states(batch), batch.noise, batch.timesteps, alphas=self.alphas,
                                prediction=self.base.prediction, extra_channels=extra, shown_noise=batch.shown_noise,
                                region=batch.region)
        if self.level_weights is not None:
            errors = errors * self.level_weights[batch.timesteps]
        if reconstruction is not None:
            errors = errors + self.objective.reconstruction_weight * reconstruction
        return errors if batch.weights is None else errors * batch.weights

    def _states(self, batch: Batch) -> Tensor:
        """Text states (B, 77, d); a text encoder that is trained reads each different caption once."""
        if batch.states is not None:
            return batch.states
        different = list(dict.fromkeys(batch.captions))
        return self.encode(different)[[different.index(caption) for caption in batch.captions]]

    def _encoded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Latents of the autoencoder that is trained, sampled, and the error of each image that it makes of them."""
        with self.accelerator.autocast():
            mean, deviation = self.base.posterior(batch.images)
            latents = mean + deviation * batch.posterior
            return latents, reconstruction_loss(self.base, latents, batch.images)

    def _check_finite(self, passes: Sequence[Batch], errors: Sequence[float], total: float, norm: float) -> None:
        """Raise TrainingStopped for a loss or gradient that is not finite, before it gets into the weights.

        ``errors`` are those of the images of ``passes``, ``total`` their sum with those of the other processes.
        """
        if math.isfinite(total) and (math.isfinite(norm) or self.accelerator.scaler is not None):  # the scaler skips such a gradient
            return
        indices = [index for batch in passes for index in batch.indices]
        spoiled = processes.gather([index for index, error in zip(indices, errors, strict=True) if not math.isfinite(error)],
                                   self.accelerator)
        indices = processes.gather(indices, self.accelerator)
        what, records = "the loss" if spoiled else "the gradient", self.prepared.records
        images = listing([records[index].image for index in dict.fromkeys(spoiled or indices)], 8)
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
        if not self.accelerator.is_main_process or not every or (step % every and step < self.options.steps):
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
        if self.accelerator.is_main_process and every and step % every == 0 and step < self.options.steps:
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
        if self.updating or self.state.step == self.saved or not self.accelerator.is_main_process:
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
