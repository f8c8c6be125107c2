"""ASE's Langevin dynamics at constant pressure, with what has to be known of it to go on after an interruption."""

import numpy as np
from ase.md.langevinbaoab import LangevinBAOAB


class LangevinBarostat(LangevinBAOAB):
    """:class:`ase.md.langevinbaoab.LangevinBAOAB` with the drag of Quigley and Probert's equation 5b where the cell
    changes its shape: the trace of the cell's momentum acts on each direction for itself. ASE 3.29 adds it to all nine
    components, which mixes directions."""

    def _barostat_BAOAB_OU_gamma_mod(self):
        if self.hydrostatic:
            return super()._barostat_BAOAB_OU_gamma_mod()
        return (self.p_eps + np.trace(self.p_eps) / self.Ndof * np.eye(3)) / self.barostat_mass

    @property
    def cell_state(self) -> dict[str, np.ndarray]:
        """Momentum of the cell and the force on it: all that the next step needs besides atoms and random numbers."""
        return {"cell_momentum": np.asarray(self.p_eps), "cell_force": np.asarray(self.force_eps)}

    @cell_state.setter
    def cell_state(self, state: dict[str, np.ndarray]) -> None:
        self.p_eps = state["cell_momentum"].copy()[()]  # type: ignore[assignment]  # a matrix if the shape changes
        self.force_eps = state["cell_force"].copy()[()]
