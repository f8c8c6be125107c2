"""SOAP: Adam along the directions in which gradients vary, for weights that are matrices, as a potential's all are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_cgconv.cuda_graphs import aside, capturing, side_by_side

# Steps between two turns of the bases; errors were the same with 10, a fifteenth larger with 50.
TURN_EVERY = 20
# Bases are n x n, so longer sides of a weight are cut into pieces, which do not know of each other.
MAX_BASIS = 512
# Of the sum of a covariance's eigenvalues: directions that gradients never have stay apart from each other.
DAMPING = 1e-5


class Soap(Optimizer):
    r"""Adam in a basis that turns (Vyas et al., `SOAP <https://arxiv.org/abs/2409.11321>`_).

    .. math::
        \mathbf{L} \leftarrow \beta_2 \mathbf{L} + (1 - \beta_2) \mathbf{G}' \mathbf{G}'^T, \qquad
        \mathbf{R} \leftarrow \beta_2 \mathbf{R} + (1 - \beta_2) \mathbf{G}'^T \mathbf{G}'

    .. math::
        \mathbf{M} \leftarrow \beta_1 \mathbf{M} + (1 - \beta_1) \mathbf{G}, \qquad
        \mathbf{V} \leftarrow \beta_2 \mathbf{V} + (1 - \beta_2) (\mathbf{P}^T \mathbf{G} \mathbf{Q})^{\odot 2}

    .. math::
        \mathbf{W} \leftarrow \mathbf{W} - \eta \, \mathbf{P}
            \frac{\mathbf{P}^T \mathbf{M} \mathbf{Q}}{\sqrt{\mathbf{V}} + \epsilon} \mathbf{Q}^T

    for each weight W (r, c) with gradient G, and G' at the step before, where the columns of P (r, r) and Q (c, c) are
    eigenvectors of L and R as they were at the last :meth:`turn`. What is kept of M is :math:`\mathbf{P}^T \mathbf{M}
    \mathbf{Q}`, which takes two products less a step. Until the first this is Adam, without its correction
    of the first steps' bias: the moments' ratio hardly has one. L and R are a step behind the published ones, so that
    a CUDA graph can bring them up to date while it does other things.

    Weights of one shape are taken together, and the learning rate may be a tensor: a CUDA graph can hold a step, in few
    kernels, which the authors' implementation does not allow.

    Args:
        params: Weights of two dimensions.
        lr: Learning rate :math:`\eta`, a number or a scalar on the weights' device: the largest that a step changes
            weights by, about.
        betas: :math:`\beta_1, \beta_2`.
        eps: :math:`\epsilon`, in units of the gradient.

    Attributes:
        captures: Whether steps are held by a CUDA graph. Then whoever captures them calls :meth:`observe`, and
            :meth:`turn`, which is some thousand launches, becomes a graph at its second call.

    Raises:
        ValueError: a weight is no matrix.
    """

    captures = False

    def __init__(self, params, lr: float | Tensor = 0.03, betas: tuple[float, float] = (0.95, 0.95), eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        self._stacks: dict[int, tuple[list[int], list[_Stack]]] = {}
        self._turning: _Turning | None = None
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            if weight.ndim != 2:
                raise ValueError(f"params: expected matrices, got a weight of shape {tuple(weight.shape)}; use Adam")

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.captures:
            self.observe()
        for place, group in enumerate(self.param_groups):
            weights = [weight for weight in group["params"] if weight.grad is not None and weight.numel()]
            options = group["lr"], *group["betas"], group["eps"]
            steps = [aside(stack.step, *options) for stack in self._stacks_of(place, weights)]
            for finished in steps:
                finished()
        return loss

    @torch.no_grad()
    def observe(self) -> None:
        """Covariances take up the gradients of the last step; nothing but :meth:`turn` waits for it."""
        for place, group in enumerate(self.param_groups):
            _, stacks = self._stacks.get(place) or (None, self._stacks_with_states(place))
            for stack in stacks:
                stack.observe(group["betas"][1])

    @torch.no_grad()
    def turn(self) -> None:
        """Turns the bases towards the eigenvectors of the covariances; to be called every :data:`TURN_EVERY` steps."""
        stacks = [stack for place in range(len(self.param_groups)) for stack in self._stacks_with_states(place)]
        if not self.captures or not stacks:
            _turn(stacks)
            return
        if self._turning is None or self._turning.stacks != stacks:
            _turn(stacks)
            self._turning = _Turning(stacks)
        else:
            self._turning.again()

    def __setstate__(self, state) -> None:
        super().__setstate__(state)  # which loads a checkpoint, too
        self._stacks, self._turning = {}, None

    def _stacks_with_states(self, group: int) -> list[_Stack]:
        return self._stacks_of(group, [weight for weight in self.param_groups[group]["params"] if weight in self.state])

    def _stacks_of(self, group: int, weights: Sequence[Tensor]) -> list[_Stack]:
        """The stacks of these weights of a group: those of the last call, unless weights or states are others now."""
        known, stacks = self._stacks.get(group, (None, []))
        if known != (key := [id(weight) for weight in weights]):
            by_shape = defaultdict(list)
            for weight in weights:
                by_shape[_pieces(weight).shape[1:]].append(weight)
            stacks = [_Stack(alike, [self.state[weight] for weight in alike]) for alike in by_shape.values()]
            self._stacks[group] = key, stacks
        return stacks


class _Stack:
    """Weights whose pieces have one shape (r, c), k in all. Their states (pieces, ...) are views of tensors (k, ...).

    Args:
        weights: which.
        states: of each weight; read where there is something in them already, and filled.
    """

    def __init__(self, weights: Sequence[Tensor], states: Sequence[dict]):
        self.weights, self.states, pieces = weights, states, [_pieces(weight) for weight in weights]
        self.counts, shape = [len(cut) for cut in pieces], pieces[0].shape[1:]
        self.gradient = self._together("gradient", [torch.zeros_like(cut) for cut in pieces])
        self.momentum = self._together("rotated_momentum", [torch.zeros_like(cut) for cut in pieces])
        self.second_moment = self._together("second_moment", [torch.zeros_like(cut) for cut in pieces])
        self.covariance, self.basis = {}, {}
        for side, n in enumerate(shape):
            if n > 1 and (n <= MAX_BASIS or n == min(shape)):
                zeros = [cut.new_zeros(len(cut), n, n) for cut in pieces]
                identities = [torch.eye(n, dtype=cut.dtype, device=cut.device).expand(len(cut), n, n) for cut in pieces]
                self.covariance[side] = self._together(f"covariance_{side}", zeros)
                self.basis[side] = self._together(f"basis_{side}", identities)
        self.turned: dict[int, Tensor] = {}
        if any("momentum" in state for state in self.states):  # of runs of 0.1, in no basis
            kept = [
                state.pop("momentum", torch.zeros_like(cut)) for state, cut in zip(self.states, pieces, strict=True)
            ]
            self.momentum.copy_(self._rotated(torch.cat(kept)))

    def step(self, lr: float | Tensor, beta1: float, beta2: float, eps: float) -> None:
        """One step of weights that all have gradients."""
        pieces = [_pieces(weight.grad) for weight in self.weights if weight.grad is not None]
        gradient = self._rotated(torch.cat(pieces, out=self.gradient))
        self.momentum.lerp_(gradient, 1 - beta1)
        self.second_moment.lerp_(gradient.square(), 1 - beta2)
        change = self.momentum / (self.second_moment.sqrt() + eps)
        change = self._rotated(change, back=True) * lr
        pieces = [_pieces(weight) for weight in self.weights]  # views
        torch._foreach_sub_(pieces, change.split(self.counts))

    def observe(self, beta2: float) -> None:
        """Covariances take up the gradient of the last step, once."""
        for side, covariance in self.covariance.items():
            a, b = (self.gradient, self.gradient.mT) if side == 0 else (self.gradient.mT, self.gradient)
            covariance.baddbmm_(a, b, beta=beta2, alpha=1 - beta2)
        self.gradient.zero_()

    def turn(self, side: int) -> None:
        """Turns the bases of this side; :meth:`follow` is to be called after both."""
        covariance, basis = self.covariance[side], self.basis[side]
        trace = covariance.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        new = _orthonormal(covariance @ basis + DAMPING * trace * basis, otherwise=basis)
        self.turned[side] = basis.mT @ new
        basis.copy_(new)

    def follow(self) -> None:
        """Brings the momentum from the old bases to the new ones."""
        self.momentum.copy_(_between(self.momentum, self.turned))

    def _rotated(self, x: Tensor, back: bool = False) -> Tensor:
        """x (k, r, c) with its rows and columns in the bases, or back from there."""
        return _between(x, {side: basis.mT if back else basis for side, basis in self.basis.items()})

    def _together(self, name: str, initial: Sequence[Tensor]) -> Tensor:
        """What the states have under this name, or else ``initial``, in one tensor, of which they get views."""
        together = torch.cat([state.get(name, value) for state, value in zip(self.states, initial, strict=True)])
        for state, view in zip(self.states, together.split(self.counts), strict=True):
            state[name] = view
        return together


def _turn(stacks: Sequence[_Stack]) -> None:
    turns = [partial(stack.turn, side) for stack in stacks for side in stack.basis]
    if turns:
        side_by_side(turns, stacks[0].momentum.device)
        side_by_side([stack.follow for stack in stacks], stacks[0].momentum.device)


def _between(x: Tensor, rotations: Mapping[int, Tensor]) -> Tensor:
    """x (k, r, c) with its rows, side 0, and its columns in the bases that the columns of these matrices are."""
    for side, rotation in rotations.items():
        x = rotation.mT @ x if side == 0 else x @ rotation
    return x


class _Turning:
    """A CUDA graph that turns the bases of stacks, which have been turned without one before."""

    def __init__(self, stacks: Sequence[_Stack]):
        self.stacks = list(stacks)
        self._stream = torch.cuda.Stream(stacks[0].momentum.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def again(self) -> None:
        if self._graph is None:
            with capturing(self._stream) as self._graph:
                _turn(self.stacks)
        self._graph.replay()


def _pieces(matrix: Tensor) -> Tensor:
    """A view (pieces, r, c) of the matrix, cut along its longer side into as few equal pieces as have no side of more
    than ``MAX_BASIS`` there."""
    longer = int(matrix.shape[1] > matrix.shape[0])
    n = matrix.shape[longer]
    pieces = next(count for count in range(1, n + 1) if n % count == 0 and n <= count * MAX_BASIS)
    return matrix.unflatten(longer, (pieces, n // pieces)).movedim(longer, 0)


def _orthonormal(x: Tensor, otherwise: Tensor) -> Tensor:
    """The columns of each x (k, n, n) made orthonormal from the first to the last, ``otherwise`` where rounding errors
    prevent that: a QR decomposition by Cholesky's, which a GPU does for all matrices together.

    It squares the condition number, and reduced precision of matrix products shall not matter: hence float64.
    """
    x = x.double()
    x = x / x.norm(dim=1, keepdim=True)
    factor, _ = torch.linalg.cholesky_ex(x.mT @ x)
    x = torch.linalg.solve_triangular(factor, x.mT, upper=False).mT
    error = (x.mT @ x - torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)).abs().amax((1, 2), keepdim=True)
    return torch.where(error < 1e-3, x.to(otherwise.dtype), otherwise)  # an error that is not a number is not
