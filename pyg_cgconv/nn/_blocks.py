"""One round of equivariant message passing: linear, fused convolution, linear, self-connection, gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from e3nn import o3
from torch import Tensor, nn

from .._checks import positive_number, whole_numbers
from ..cuda_graphs import aside
from ..ops import Edges
from ..tensor_product import IrrepsLike, Rows
from ._conv import TensorProductConv
from ._gate import Gate
from ._linear import Linear, SpeciesLinear
from ._products import NodeProducts
from ._radial import RadialNetwork
from ._species import Species


class InteractionBlock(nn.Module):
    r"""The interaction of NequIP (Batzner et al., `E(3)-equivariant graph neural networks for data-efficient and
    accurate interatomic potentials <https://arxiv.org/abs/2101.03164>`_).

    .. math::
        \mathbf{m}_i = \frac{1}{\sqrt{\bar N}} \sum_{j \in \mathcal{N}(i)} \mathrm{TP}\big(
                       \mathbf{L}_1 \mathbf{x}_j, Y(\hat{\mathbf{r}}_{ij}); \mathbf{w}(r_{ij}, z_j)\big),
        \qquad
        \mathbf{x}'_i = \mathrm{gate}\big(\mathbf{L}_2 \mathbf{m}_i + \mathbf{S}^{(z_i)} \mathbf{x}_i\big)

    with the average number of neighbours :math:`\bar N`, linear maps L, a linear map S for each species, and weights
    from a radial network, which may know the species of the neighbour. Without the self-connection S an atom without
    neighbours gets zeros. With products, the gate takes those of :math:`\mathbf{m}_i`, too
    (:class:`NodeProducts`).

    Args:
        irreps_in: Node features, each irrep once.
        irreps_sh: Edge features, usually spherical harmonics.
        irreps_out: Wanted node features, each irrep once; ``self.irreps_out`` has those that messages can reach.
        num_basis: Radial functions an edge.
        radial_hidden: Widths of the radial network's hidden layers.
        avg_num_neighbors: :math:`\bar N`.
        num_species: Number of species; None leaves out the self-connection.
        num_radial_species: Number of species; None leaves them out of the radial network.
        products: Whether there are products of messages, which then have all irreps of ``irreps_sh``.
        layout: Order of the numbers in rows of node and edge features: "mul_ir" (e3nn's) or "ir_mul" (a component's
            channels together, the faster).
        backend: As in :class:`TensorProductConv`.

    Shapes:
        - **input:** node features (n, irreps_in.dim), species (n,), edge indices (2, E), edge features
          (E, irreps_sh.dim), radial functions (E, num_basis); with ``num_radial_species`` also the species of the
          edges' sources (E,); node and edge features in the layout. Species are numbers below S, or one-hot rows (n, S)
          and (E, S). Where the edges' sources are other nodes than their targets, such as atoms and ghosts, the node
          features are a pair of those of sources (m, irreps_in.dim) and targets (n, irreps_in.dim)
        - **output:** node features (n, self.irreps_out.dim) in the layout

    Raises:
        ValueError: an argument makes no sense; it is named.
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_sh: IrrepsLike,
        irreps_out: IrrepsLike,
        *,
        num_basis: int = 8,
        radial_hidden: Sequence[int] = (64, 64),
        avg_num_neighbors: float = 1.0,
        num_species: int | None = None,
        num_radial_species: int | None = None,
        products: bool = False,
        layout: str = "mul_ir",
        backend: str = "auto",
    ):
        super().__init__()
        self.irreps_in, self.irreps_sh, self.layout = o3.Irreps(irreps_in), o3.Irreps(irreps_sh), layout
        self.irreps_out = reachable(self.irreps_in, self.irreps_sh, irreps_out)
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)
        self._rows_sh = Rows(self.irreps_sh, layout, "edge_sh")
        if num_radial_species is not None:
            num_radial_species = positive_number("num_radial_species", num_radial_species)
        if not avg_num_neighbors > 0:
            raise ValueError(f"avg_num_neighbors: expected a positive number, got {avg_num_neighbors}")
        self.scale = 1 / math.sqrt(avg_num_neighbors)

        inside = "ir_mul"  # the faster: rows are converted once before and once after
        fused = backend != "reference"
        self.gate = Gate(self.irreps_out, layout=inside, fused=fused)
        self.linear_in = Linear(self.irreps_in, self.irreps_in, layout=inside, fused=fused)
        messages = self.gate.irreps_in
        if products:  # of which those of other irreps are of use, too
            messages = messages + o3.Irreps([slot for slot in self.irreps_sh if slot.ir not in messages])
        self.conv = TensorProductConv(self.irreps_in, self.irreps_sh, messages, layout=inside, backend=backend)
        widths = whole_numbers("radial_hidden", radial_hidden)
        self.radial = RadialNetwork(num_basis, widths, self.conv.weight_numel, num_radial_species)
        self.linear_out = Linear(self.conv.irreps_out, self.gate.irreps_in, layout=inside, fused=fused)
        before, after = self.irreps_in, self.gate.irreps_in
        self.self_connection = self.products = None
        if num_species is not None:
            self.self_connection = SpeciesLinear(before, after, num_species, layout=inside, fused=fused)
        if products:
            channels = before.count("0e")
            self.products = NodeProducts(self.conv.irreps_out, channels, after, layout=inside, fused=fused)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        species: Species,
        edge_index: Tensor,
        edge_sh: Tensor,
        edge_radial: Tensor,
        edge_species: Tensor | None = None,
    ) -> Tensor:
        sources, x = x if isinstance(x, tuple) else (None, x)
        x = self._rows_in.to_ir_mul(x)
        beside = self._beside(x, species, edge_radial, edge_species)
        if sources is None:
            return self._received(self.scale * self.linear_in(x), None, edge_index, edge_sh, *beside)
        return self._received(self.send(sources), (sources.shape[0], x.shape[0]), edge_index, edge_sh, *beside)

    def send(self, x: Tensor) -> Tensor:
        """What the messages of nodes are made of: once for all that receive them piece by piece (:meth:`receive`).

        Args:
            x: Node features (m, irreps_in.dim).

        Returns:
            Rows (m, irreps_in.dim) in the layout "ir_mul".
        """
        return self.scale * self.linear_in(self._rows_in.to_ir_mul(x))

    def receive(
        self,
        sent: Tensor,
        x: Tensor,
        species: Species,
        edges: Edges,
        edge_sh: Tensor,
        edge_radial: Tensor,
        edge_species: Tensor | None = None,
    ) -> Tensor:
        """The new features of some nodes.

        Args:
            sent: What :meth:`send` gives of all m nodes.
            x: The features of these n nodes, and so ``species``.
            edges: From the m nodes to these, and so ``edge_sh``, ``edge_radial`` and ``edge_species``.

        Returns:
            (n, self.irreps_out.dim) in the layout.
        """
        beside = self._beside(self._rows_in.to_ir_mul(x), species, edge_radial, edge_species)
        return self._received(sent, (len(sent), len(x)), edges, edge_sh, *beside)

    def _beside(
        self, x: Tensor, species: Species, edge_radial: Tensor, edge_species: Tensor | None
    ) -> tuple[Callable[[], Tensor], Callable[[], Tensor] | None]:
        """The weights of the edges and the self-connection: what waits for no message."""
        weight = aside(self.radial, edge_radial, edge_species)
        return weight, None if self.self_connection is None else aside(self.self_connection, x, species)

    def _received(
        self,
        sent: Tensor,
        size: tuple[int, int] | None,
        edges: Tensor | Edges,
        edge_sh: Tensor,
        weight: Callable[[], Tensor],
        connected: Callable[[], Tensor] | None,
    ) -> Tensor:
        """``size``: how many sources and targets there are, where these are other nodes."""
        features = sent if size is None else (sent, None)
        messages = self.conv(features, edges, self._rows_sh.to_ir_mul(edge_sh), weight(), size)
        multiplied = None if self.products is None else aside(self.products, messages)
        out = self.linear_out(messages)
        for others in (multiplied, connected):
            if others is not None:
                out = out + others()
        return self._rows_out.from_ir_mul(self.gate(out))

    def extra_repr(self) -> str:
        return f"{self.irreps_in} x {self.irreps_sh} -> {self.irreps_out}, layout={self.layout!r}"


def wanted_irreps(
    irreps_hidden: IrrepsLike, irreps_last: IrrepsLike, irreps_sh: IrrepsLike, layers: int
) -> list[o3.Irreps]:
    """The output of each of ``layers`` blocks: ``irreps_hidden``, without what no later block can turn into
    ``irreps_last`` (pseudovectors right before a last block of even scalars, say)."""
    wanted = [o3.Irreps(irreps_last)]
    for _ in range(layers - 1):
        following = {ir for _, ir in wanted[0]}
        useful = [slot for slot in o3.Irreps(irreps_hidden) if products([slot], irreps_sh) & following]
        wanted.insert(0, o3.Irreps(useful))
    return wanted


def products(irreps_in: IrrepsLike, irreps_sh: IrrepsLike) -> set[o3.Irrep]:
    """The irreps that a product of an input and an edge irrep can contain."""
    return {ir for _, a in o3.Irreps(irreps_in) for _, b in o3.Irreps(irreps_sh) for ir in a * b}


def reachable(irreps_in: IrrepsLike, irreps_sh: IrrepsLike, irreps_wanted: IrrepsLike) -> o3.Irreps:
    """The wanted irreps that some product of an input and an edge irrep contains.

    Raises:
        ValueError: none can be reached.
    """
    found = products(irreps_in, irreps_sh)
    irreps = o3.Irreps([(mul, ir) for mul, ir in o3.Irreps(irreps_wanted) if ir in found])
    if not len(irreps):
        raise ValueError(f"irreps_out: none of {irreps_wanted} is reached by {irreps_in} x {irreps_sh}")
    return irreps
