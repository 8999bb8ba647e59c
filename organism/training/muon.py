"""Muon: momentum whose step is made orthogonal, for the matrices inside a transformer.

Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. Matrices of one shape go through the iteration
as one batch, and where several processes train together each takes its share of them.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz iteration that moves the singular values of each matrix to about 1 (0.7 to 1.2).

    Parameters
    ----------
    matrices : tensor of shape (n, rows, columns), rows <= columns.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    # torch.optim.Muon iterates in bfloat16, which turns each step by about 1% from the one that the embedded weights
    # were trained with, takes one matrix after the other, and knows nothing of several processes.
    """Nesterov momentum, orthogonalised; the step of a tall matrix is longer by the root of rows over columns."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float = 4e-3, momentum: float = 0.95) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step; the gradients must already be the same in every process."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for group in self.param_groups:
            matrices = group["params"]
            shapes: dict[tuple[int, ...], list[int]] = {}
            for number, p in enumerate(matrices):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].mul_(group["momentum"]).add_(p.grad)
                shapes.setdefault(tuple(sorted(p.shape)), []).append(number)
            steps = [torch.zeros_like(p) for p in matrices]
            for numbers in shapes.values():
                mine = numbers[rank::world]
                if not mine:
                    continue
                ahead = [matrices[n].grad + group["momentum"] * self.state[matrices[n]]["momentum"] for n in mine]
                wide = torch.stack([m if m.shape[0] <= m.shape[1] else m.mT for m in ahead])
                for n, m in zip(mine, orthogonalise(wide), strict=True):
                    rows, columns = matrices[n].shape
                    steps[n].copy_((m if rows <= columns else m.mT) * max(1, rows / columns) ** 0.5)
            if world > 1:
                flat = torch.cat([s.reshape(-1) for s in steps])
                dist.all_reduce(flat)
                steps = [
                    part.view_as(p) for part, p in zip(flat.split([p.numel() for p in matrices]), matrices, strict=True)
                ]
            for p, s in zip(matrices, steps, strict=True):
                p.add_(s, alpha=-group["lr"])
