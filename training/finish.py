"""The end of a training: the adapter file with its header, and what run.json says of the finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from .. import config
from ..errors import MedTuneError
from .adapter import make_header, write_adapter
from .options import INCIDENTAL, TrainOptions

if TYPE_CHECKING:
    from PIL.Image import Image

    from .run import Run
    from .trainer import Trainer


def incidental(options: TrainOptions) -> dict[str, Any]:
    """The options that are no part of what a run is made of."""
    return {name: value for name, value in config.to_json(options).items() if name in INCIDENTAL}


def write(trainer: Trainer) -> None:
    """Write the adapter (of the moving average, where there is one), mark the run finished, and drop its checkpoint."""
    trainer.check_weights()
    run, method, base = trainer.run, trainer.method, trainer.base
    header = make_header(base, method, title=run.folder.name, steps=trainer.options.steps, lr=trainer.lr, images=len(trainer.records),
                         data_hash=run.made_of["data"], size=trainer.options.size, options=config.to_json(trainer.options),
                         thumbnail=_last_sample(run))
    if trainer.average is not None:
        with trainer.average.adopted():
            tensors = method.export(base)
    else:
        tensors = method.export(base)
    try:
        write_adapter(run.adapter, tensors, header)
    except SafetensorError as error:
        raise MedTuneError(f"cannot write {run.adapter}: {error}. Free some space and start again: the run goes on from its last "
                           "checkpoint") from error
    run.write(finished=True, seconds=round(trainer.state.seconds, 3), notices=trainer.notices)
    if trainer.average is not None:
        trainer.average.adopt()
    run.checkpoint.unlink(missing_ok=True)


def _last_sample(run: Run) -> Image | None:
    from PIL import Image

    drawn = sorted(run.samples.glob("step-*-0.png"))
    return Image.open(drawn[-1]) if drawn else None
