"""Training on several processes, as `torchrun` or `accelerate launch` start them: each takes its share of the same global draw.

Gradients are summed over the processes, so that an update is that of one process with the whole batch. The first process alone
writes files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
BUCKET = 2**25  # gradient values that are summed at once


def is_main() -> bool:
    """Whether this is the process that writes, as the launcher says."""
    return int(os.environ.get("RANK", "0")) == 0


def count() -> int:
    """The number of processes that the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(start: int, stop: int, accelerator: Accelerator) -> slice:
    """This process's part of the images ``start`` to ``stop``; all processes together have each image once."""
    index, processes = accelerator.process_index, accelerator.num_processes
    return slice(*(start + (stop - start) * place // processes for place in (index, index + 1)))


@torch.no_grad()
def sum_gradients(parameters: Iterable[Tensor], accelerator: Accelerator) -> None:
    """Put the sum over the processes in the place of each gradient."""
    if accelerator.num_processes == 1:
        return
    for bucket in _buckets(parameter.grad for parameter in parameters if parameter.grad is not None):
        summed = accelerator.reduce(torch.cat([gradient.flatten() for gradient in bucket]), "sum")
        for gradient, part in zip(bucket, summed.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of gradients of one type and at most BUCKET values, or one that is larger."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (gradient.dtype != bucket[0].dtype or sum(map(Tensor.numel, bucket)) + gradient.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def total(value: float, accelerator: Accelerator) -> float:
    """The sum of a value over the processes; not finite where one is not."""
    if accelerator.num_processes == 1:
        return value
    return accelerator.reduce(torch.tensor(value, device=accelerator.device, dtype=torch.float32), "sum").item()


def from_main(question: Callable[[], T], accelerator: Accelerator) -> T:
    """What the first process answers, on all."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([question() if accelerator.is_main_process else None])[0]


def gather(values: list, accelerator: Accelerator) -> list:
    """The values of all processes, one process's after the other's."""
    from accelerate.utils import gather_object

    return gather_object(values) if accelerator.num_processes > 1 else values
