"""``python -m pyg_cgconv.benchmark``: this layer and its peers, timed side by side in one process."""
