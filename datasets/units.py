"""Units: every data set here gives eV, Angstrom and eV/Angstrom; files in other units are converted once, when read."""

# CODATA 2014, as in ase.units, so that energies here and in ASE agree to the last digit.
KCAL_PER_MOL = 0.04336410390059322  # eV; 4184 J over Avogadro's number, in elementary charges
HARTREE = 27.211386024367243  # eV
