"""Training: ``python -m train md17`` fits a :class:`pyg_cgconv.potential.Potential` to a data set.

The way of a run, one module each: ``cli`` (command line and YAML) -> a task such as ``md17`` (which frames) ->
``run`` (what is done in which order, the run folder) -> ``data`` (batches) and ``statistics`` (energy reference, force
scale) -> ``module`` (loss, errors, optimiser) with ``schedule`` and ``averaging``, run by Lightning (``loop``) ->
``metrics``, ``report``, ``plots``.
"""
