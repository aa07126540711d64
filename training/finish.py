"""The end of a training: its files with their headers, and what run.json says of the finished run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from .. import config
from ..errors import MedTuneError
from .adapter import make_header, write_adapter
from .options import INCIDENTAL, TrainOptions
from .products import product_header

if TYPE_CHECKING:
    from PIL.Image import Image

    from .run import Run
    from .trainer import Trainer


def incidental(options: TrainOptions) -> dict[str, Any]:
    """The options that are no part of what a run is made of."""
    return {name: value for name, value in config.to_json(options).items() if name in INCIDENTAL}


def write(trainer: Trainer) -> None:
    """Write the products (of the moving average, where there is one), mark the run finished, and drop its checkpoint."""
    trainer.check_weights()
    if trainer.accelerator.is_main_process:
        _write_files(trainer)
    if trainer.average is not None:
        trainer.average.adopt()
    trainer.accelerator.wait_for_everyone()


def _write_files(trainer: Trainer) -> None:
    run = trainer.run
    header = make_header(trainer.base, trainer.method, title=run.folder.name, steps=trainer.options.steps, lr=trainer.lr,
                         images=len(trainer.records), data_hash=run.made_of["data"], size=trainer.options.size,
                         options=config.to_json(trainer.options), objective=config.to_json(trainer.objective),
                         thumbnail=_last_sample(run))
    with trainer.average.adopted() if trainer.average is not None else contextlib.nullcontext():
        products = trainer.products()
    for kind, tensors in products.items():
        try:
            write_adapter(run.product(kind), tensors, product_header(header, kind))
        except SafetensorError as error:
            raise MedTuneError(f"cannot write {run.product(kind)}: {error}. Free some space and start again: the run goes on from its "
                               "last checkpoint") from error
    run.write(finished=True, products=list(products), seconds=round(trainer.state.seconds, 3), notices=trainer.notices)
    run.checkpoint.unlink(missing_ok=True)


def _last_sample(run: Run) -> Image | None:
    from PIL import Image

    drawn = sorted(run.samples.glob("step-*-0.png"))
    return Image.open(drawn[-1]) if drawn else None
