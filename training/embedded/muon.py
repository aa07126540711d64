"""Muon: momentum whose update is made orthogonal, for convolutions too (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

torch.optim.Muon takes matrices only; here a convolution's weight is the matrix (outputs, inputs x height x width). Matrices of one
shape are made orthogonal together: many small products, one after the other, would cost more than the network's backward pass.
"""

from collections import defaultdict

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; every parameter needs two dimensions or more. Give the rest to AdamW.

    The update's root mean square is about the learning rate, whatever the matrix's shape, so that rates are on AdamW's scale.
    """

    def __init__(self, params, lr: float = 5e-4, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update; a closure is not taken."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.flatten(1).shape].append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonal(torch.stack([self._momentum(each, group["momentum"]) for each in parameters]))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.sub_(update.reshape(parameter.shape), alpha=group["lr"] * max(shape) ** 0.5)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Bring the gradient's running mean up to date and return Nesterov's look-ahead as a matrix."""
        average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
        average.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum).flatten(1)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """(N, m, n): each close to U V^T of its singular value decomposition U S V^T, by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    wide = wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-12)
    gram = wide @ wide.mT  # the iteration is a polynomial in this: run there, on the smaller side
    identity = torch.eye(gram.shape[1]).expand_as(gram)
    product = identity
    for _ in range(steps):
        factor = a * identity + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = factor @ product
        gram = factor @ gram @ factor
    wide = product @ wide
    return wide.mT if matrices.shape[1] > matrices.shape[2] else wide
