"""MACE: `accelerate(model)` has convolutions, symmetric contractions and more computed by generated kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from e3nn import o3
from torch import Tensor, nn

from .._torch import refuse_torchscript
from ..ops import sorted_neighbors
from ._convolution import Convolution as _Sum
from ._convolution import obstacle
from ._replacement import Accelerator, Found, Replacement, found, logger
from ._replacement import Model as AnyModel
from ._versions import Known

KNOWN = Known("mace-torch", "0.3.14", "0.3.17")  # before 0.3.14, blocks do not hand the graph to their product

try:
    from mace import modules
    from mace.modules import blocks, extensions
except ImportError as error:
    raise KNOWN.missing() from error

KNOWN.check()

from ._mace_lora import FullyConnectedNet  # noqa: E402
from ._mace_model import Model  # noqa: E402
from ._mace_products import SkipConnection, SymmetricContraction  # noqa: E402  (only where MACE is installed)
from ._mace_products import coefficients_of_weights as coefficients_of_weights  # noqa: E402
from ._mace_radial import RadialEmbeddingBlock  # noqa: E402
from ._spherical import SphericalHarmonics  # noqa: E402
from .e3nn import FullyConnectedTensorProduct, Linear  # noqa: E402

__all__ = ["Convolution", "SymmetricContraction", "accelerate", "report", "restore"]

INTERACTIONS = tuple(
    getattr(blocks, name)
    for name in (
        "RealAgnosticInteractionBlock",
        "RealAgnosticResidualInteractionBlock",
        "RealAgnosticDensityInteractionBlock",
        "RealAgnosticDensityResidualInteractionBlock",
        "RealAgnosticAttResidualInteractionBlock",
        "RealAgnosticResidualNonLinearInteractionBlock",
    )
    if hasattr(blocks, name)
)
"""The blocks that hand the graph to their product where they have an attribute `conv_fusion`."""

FUSION = "pyg_cgconv"
"""What `conv_fusion` is set to; MACE asks only whether there is such an attribute."""


class Convolution(Replacement, o3.TensorProduct):
    """The product `conv_tp` of an interaction block, summed over the edges of each receiver."""

    original = o3.TensorProduct
    prepared = ("_sum",)
    told = ("_layout",)
    _layout = "mul_ir"

    @classmethod
    def obstacle(cls, module: Any) -> str:
        return obstacle(module)

    def prepare(self) -> None:
        self._sum = _Sum(self, self._layout)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, edge_index: Tensor) -> Tensor:
        refuse_torchscript(self)
        edges = sorted_neighbors(edge_index, x.shape[0])
        return self._sum(x, edges, y, weight)


class _BuiltAnew(Model):
    """A model that stays fast where MACE builds it anew by its class, from its configuration and its state dict."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        _models.exchange(self)
        self.prepare()
        report = _models.report(self)
        if not report.replaced:
            logger.warning("%s: built anew, and nothing in it is replaced: %s", type(self).__name__, report)


# MACE asks for the names of these classes.
class MACE(_BuiltAnew, modules.MACE):
    original = modules.MACE


class ScaleShiftMACE(_BuiltAnew, modules.ScaleShiftMACE):
    original = modules.ScaleShiftMACE


class MACELES(_BuiltAnew, extensions.MACELES):
    original = extensions.MACELES


MODELS: dict[type[nn.Module], type[Replacement]] = {kind.original: kind for kind in (MACE, ScaleShiftMACE, MACELES)}

if hasattr(extensions, "PolarMACE"):  # since 0.3.16

    class PolarMACE(_BuiltAnew, extensions.PolarMACE):
        original = extensions.PolarMACE

    MODELS[PolarMACE.original] = PolarMACE

REPLACEMENTS: dict[type[nn.Module], type[Replacement]] = {
    kind.original: kind
    for kind in (
        SymmetricContraction,
        FullyConnectedTensorProduct,
        Linear,
        FullyConnectedNet,
        RadialEmbeddingBlock,
        SphericalHarmonics,
    )
}
"""Classes of MACE's modules, wherever they are in a model, and what replaces them."""


class _Models(Accelerator):
    """Products are replaced where a block hands them the graph, and models so that they stay fast."""

    def classes(self) -> list[type[Replacement]]:
        return [*super().classes(), Convolution, SkipConnection]

    def find(self, model: nn.Module) -> Iterator[Found]:
        for name, block in _interactions(model):
            product_name = f"{name}.conv_tp".lstrip(".")
            if type(block) in INTERACTIONS:
                yield found(product_name, block.conv_tp, Convolution)
            else:
                yield Found(product_name, block, None, f"{type(block).__name__} is no block of MACE that is known")
        skips = {f"{name}.skip_tp".lstrip("."): block for name, block in _interactions(model) if _of_many(block)}
        yield from (found(name, block.skip_tp, SkipConnection) for name, block in skips.items())
        yield from (each for each in super().find(model) if each.name not in skips)

    def exchange(self, model: nn.Module) -> None:
        for _, block in _interactions(model):
            around = getattr(block, "cueq_config", None)
            if type(block.conv_tp) is o3.TensorProduct and around is not None and around.enabled:
                block.conv_tp._layout = around.layout_str
        super().exchange(model)
        for _, block in _interactions(model):
            if isinstance(block.conv_tp, Convolution):
                block.conv_fusion = FUSION

    def restore(self, model: AnyModel) -> AnyModel:
        super().restore(model)
        for _, block in _interactions(model):
            if getattr(block, "conv_fusion", None) == FUSION:
                del block.conv_fusion
        return model


def _interactions(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, blocks.InteractionBlock):
            yield name, module


def _of_many(block: Any) -> bool:
    """Whether the self-connection of a block is of so many elements that kernels of products are none for it."""
    skip = getattr(block, "skip_tp", None)
    if isinstance(skip, SkipConnection):
        return True
    return type(skip) is o3.FullyConnectedTensorProduct and bool(FullyConnectedTensorProduct.obstacle(skip))


_models = _Models(
    REPLACEMENTS,
    "interaction blocks of MACE that have a TensorProduct of e3nn, conv_tp, and modules of the classes "
    + ", ".join(kind.__name__ for kind in REPLACEMENTS),
    models=MODELS,
)


def accelerate(model: AnyModel, *, cuda_graphs: bool = False) -> AnyModel:
    """Has a model of MACE computed by generated kernels, where there are some. Everything else of it stays.

    Replaced are the convolutions of the interaction blocks, symmetric contractions, self-connections, linear maps,
    radial functions, and the networks that make weights of them. State dict, parameters, pickles of the whole model,
    ``.to()`` and ``copy.deepcopy`` work as before. A ScaleShiftMACE stays fast where MACE builds it anew, as
    ``MACECalculator(models=[model], compile_mode=...)`` does.

    Args:
        model: a MACE, in Python; or a module that has some.
        cuda_graphs: whether calls on a GPU are captured in CUDA graphs: those that ask for forces or stresses, or for
            ``training``, and not for Hessians or others. A graph serves one number of structures, and atoms and edges
            that fill at least half of it. In training its results have gradients by the parameters, once. Calls that no
            graph serves run as usual; the log tells why.

    Returns:
        The same model. :func:`report` tells what was replaced, as does the log (level INFO).

    Raises:
        TypeError: the model is no module, or one of TorchScript.
        ValueError: nothing in it can be replaced.
    """
    return _models.accelerate(model, cuda_graphs)


restore, report = _models.restore, _models.report
