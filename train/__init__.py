"""Training: ``python -m train md17`` fits a :class:`pyg_cgconv.potential.Potential` to a data set.

The way of a run, one module each: ``cli`` (command line and YAML) -> a task such as ``md17`` (which frames) -> ``data`` (batches)
and ``statistics`` (energy reference, force scale) -> ``module`` (loss, errors) with ``schedule`` and ``averaging`` ->
``run`` (the Lightning loop and the run folder) -> ``metrics``, ``report``, ``plots``.
"""
