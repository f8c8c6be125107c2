"""This project, MACE and NequIP, trained on the same frames for the same time: ``python -m train.side_by_side``.

``options`` says what can be chosen. ``frames`` writes the frames that all of them read. ``codes`` has the command line
of each, with the settings that its documentation recommends (``nequip.yaml``). ``runs`` starts them; ``finished`` runs
in the environment of each and says what its model predicts. ``table`` compares.
"""
