"""Training: ``python -m train md17`` fits a :class:`pyg_cgconv.potential.Potential` to a data set, ``frames`` to files.

The way of a run, one module each: ``cli`` (command line and YAML) -> a task such as ``md17`` (which frames) ->
``run`` (what is done in which order, the run folder) -> ``data`` and ``sampler`` (batches), ``statistics`` (energy
reference, force scale) -> ``module`` (errors, optimiser) with ``loss``, ``schedule`` and ``averaging``, run by
Lightning (``loop``) and kept on disk (``checkpoints``) -> ``metrics``, ``report``, ``plots``.
"""
