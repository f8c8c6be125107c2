"""Training: ``python -m train md17`` fits a :class:`pyg_cgconv.potential.Potential` to a data set, ``frames`` to files.

The way of a run, one module each:

- ``cli`` is the command line, read by ``parser``; ``tasks`` reads ``options`` (also from YAML and presets) for a task,
  ``md17``, ``frames`` or ``qm9`` (which frames); ``preset_choice`` takes a preset where none is named;
- ``source_frames`` know the file that they come from, ``heads`` their level of theory; ``isolated_atoms`` give energies
  of elements and are not learned;
  ``frame_weights`` say how much others count, ``frame_checks`` and ``unit_checks`` what is odd about them, and
  ``division`` divides them; ``label_counts`` tell what they lack;
- ``run`` says what is done in which order and owns the run folder; ``qm9_run`` does so for a property of molecules;
- ``frame_table`` has frames in columns, which need no objects, and ``columns`` joins what many frames hold;
- ``data`` and ``sampler`` make batches, ``statistics`` the energy reference and the force scale (``qm9_statistics``);
- ``fine_tuning`` starts from a trained potential with ``initial_energies`` of atoms, of which ``freezing`` keeps some
  as it is;
- ``module`` has errors and optimiser (``qm9_module``, with ``qm9_readout``), made of ``loss``, ``epoch_mean``,
  ``schedule`` and ``soap``;
- ``fitting`` is one training, whatever it learns, by Lightning's ``loop`` with ``averaging``, ``checkpoints``, ``logs``
  and ``progress``; ``run_log`` keeps what is said; ``resume`` says what can go on, ``termination`` ends it, ``lock``
  keeps others out of its folder;
- ``committee`` does several of them, and says what their ``spread`` is worth;
- on a GPU, ``captured_fit`` gives that loop steps that are CUDA graphs (``captured_step``), on ``padded_frames`` of few
  sizes (``padding``);
- ``metrics``, ``report`` and ``plots`` say what came out; ``html_report`` is a page of it, filled by
  ``potential_report`` (``report_sections``, of ``frame_errors`` and ``error_plot``) or ``property_report``.

The way of a command on a trained model: ``cli`` -> ``commands`` -> ``evaluate``, ``predict``, ``select`` (which leaves
``near_duplicates`` out), ``export`` or ``md``. They take the model from ``trained``, structures from ``data_files`` and
``predictions`` for these, which ``comparison`` holds against labels, and write where ``outputs`` lets them.

The way of a dynamics: ``md`` reads ``md_options``, ``md_setup`` makes what moves by ``dynamics`` (``barostat``,
``replicas``), ``md_record`` writes what ``dynamics_plot`` shows, ``md_state`` lets it go on after an interruption.

``side_by_side`` trains other codes as well, and compares.
"""
