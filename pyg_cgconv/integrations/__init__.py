"""Models of other packages, made fast in place.

    mace, nequip, sevennet, e3nn    one module for each package: accelerate, restore, report
    replacement   a module's class exchanged for one that computes the same faster
    convolution   a product of e3nn on edges, summed over their targets
    linear        e3nn's linear map as one matrix product an irrep
    fully_connected   e3nn's multilayer perceptron with its constants in the weights
    spherical     e3nn's spherical harmonics in programs that are traced
    mace_products   MACE's symmetric contraction
    mace_radial   MACE's radial functions, with their slopes
    mace_lora     MACE's low-rank adaptation of networks
    self_connection   products with attributes that are looked up by species, as linear maps by species
    captured      a whole model whose calls CUDA graphs serve; mace_model, nequip_model, sevennet_model: theirs
    replay        a call as a CUDA graph; gradients: those of a loss by its parameters as another one
    nequip_extension   what NequIP loads when it is imported
    versions      which versions of the packages are known

Nothing here imports PyTorch Geometric: that would break torch.jit.script of these packages' models.
"""

from ._replacement import Report

__all__ = ["Report"]
