"""The first molecules of QM9 as they are published, and files in the published layouts that hold only them."""

# GDB-9 number: symbols, positions (Angstrom), and mu, alpha, homo, lumo, gap, r2, zpve, U0, U, H, G, Cv as published.
METHANE = (
    "CHHHH",
    [[-0.0127, 1.0858, 0.0080], [0.0022, -0.0060, 0.0020], [1.0117, 1.4638, 0.0003], [-0.5408, 1.4475, -0.8766],
     [-0.5238, 1.4379, 0.9064]],
    [0.0, 13.21, -0.3877, 0.1171, 0.5048, 35.3641, 0.044749, -40.47893, -40.476062, -40.475117, -40.498597, 6.469],
)  # fmt: skip
AMMONIA = (
    "NHHH",
    [[-0.0404, 1.0241, 0.0626], [0.0173, 0.0125, -0.0274], [0.9158, 1.3587, -0.0288], [-0.5203, 1.3435, -0.7755]],
    [1.6256, 9.46, -0.257, 0.0829, 0.3399, 26.1563, 0.034358, -56.525887, -56.523026, -56.522082, -56.544961, 6.316],
)
WATER = (
    "OHH",
    [[-0.0344, 0.9775, 0.0076], [0.0648, 0.0206, 0.0015], [0.8718, 1.3008, 0.0007]],
    [1.8511, 6.31, -0.2928, 0.0687, 0.3615, 19.0002, 0.021375, -76.404702, -76.401867, -76.400922, -76.422349, 6.002],
)
MOLECULES = {1: METHANE, 2: AMMONIA, 3: WATER}
LEFT_OUT = 2

SDF_HEADER = "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0_atom,u298_atom,h298_atom,g298_atom"
PACK_HEADER = (
    "XYZ_file,Index,SMILES,InChi,N_atoms,Stoichiometry,Elements,XYZ_Ang,Mulliken_pop,Harmonic_Freq_cmi,RotA_GHz,"
    "RotB_GHz,RotC_GHz,Dipole_debye,Polarizability_bohr3,HOMO_au,LUMO_au,HOMO_LUMO_gap_au,R2_bohr2,ZPVE_au,"
    "InternalEnergy_0K_au,InternalEnergy_298K_au,Enthalphy_298K_au,GibbsFreeEnergy_298K_au,Heatcapacity_Cv_cal_mol_K"
)


def write_raw(folder):
    """gdb9.sdf, gdb9.sdf.csv and uncharacterized.txt of the three molecules; ammonia is the one to leave out."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks, rows = [], [SDF_HEADER]
    for number, (symbols, positions, targets) in MOLECULES.items():
        atoms = [
            f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol}   0  0  0  0  0  0  0  0  0  0  0  0"
            for symbol, (x, y, z) in zip(symbols, positions, strict=True)
        ]
        bonds = [f"  1{atom:3}  1  0  0  0  0" for atom in range(2, len(symbols) + 1)]
        counts = f"{len(symbols):3}{len(bonds):3}  0     0  0  0  0  0  0999 V2000"
        blocks += [f"gdb_{number}", " -OEChem-03231823243D", "", counts, *atoms, *bonds, "M  END", "$$$$"]
        rows.append(",".join(map(str, [f"gdb_{number}", 1.0, 2.0, 3.0, *targets, -1.0, -2.0, -3.0, -4.0])))
    (folder / "gdb9.sdf").write_text("\n".join(blocks) + "\n")
    (folder / "gdb9.sdf.csv").write_text("\n".join(rows) + "\n")
    header = ["=" * 20, "3 molecules that failed the check", "", "21725 was named elsewhere", "", "", "", "Index", "="]
    table = [f"{LEFT_OUT:>8}  N  N", "=" * 20]
    (folder / "uncharacterized.txt").write_text("\n".join([*header, *table]) + "\n")


def write_pack(folder):
    """A package qm9pack in ``folder`` whose data are those molecules that are not left out."""
    (folder / "qm9pack" / "data").mkdir(parents=True)
    (folder / "qm9pack" / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    rows = []
    for number, (symbols, positions, targets) in MOLECULES.items():
        elements = ",".join(f"'{symbol}'" for symbol in symbols)
        values = ",".join(map(str, targets))
        rows.append(
            f'"dsgdb9nsd_{number:06}.xyz",{number},"C","InChI=1S/C",{len(symbols)},"[1,0]","[{elements}]","{positions}",'
            f'"[-0.5]","[1.]",1.,2.,3.,{values}'
        )
    for part, held in (("part1", rows[:1]), ("part2", []), ("part3", rows[2:])):
        (folder / "qm9pack" / "data" / f"qm9_{part}.csv").write_text("\n".join([PACK_HEADER, *held]) + "\n")
