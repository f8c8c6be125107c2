"""What can be chosen in a comparison."""

from dataclasses import dataclass
from pathlib import Path

from train.options import MAX_TIME_FORMAT, require_positive


@dataclass(frozen=True)
class ComparisonOptions:
    """Comparison: what is compared, and how long each training takes.

    Args:
        run_dir: new folder for all that is written.
        max_time: of each training, DD:HH:MM:SS.
        seeds: a training of each code for each of them.
        jobs: trainings at a time.
        threads: of each training.
        pyg_cgconv: the Python that runs this project, from this checkout; as in a shell, so that it may be
            "env PYTHONPATH=FOLDER python3" (default: this one).
        mace: the Python that runs mace-torch.
        nequip: the Python that runs nequip.
        pyg_cgconv_options: further options of `python -m train frames`, such as "--channels 32".
        mace_options: further options of `mace_run_train`, such as "--num_channels=48".
        nequip_options: further options of `nequip-train`, such as "training_module.model.num_features=32".
        from_json: results of an earlier comparison; its table is printed, and nothing is trained.
    """

    run_dir: Path | None = None
    max_time: str = "00:00:10:00"
    seeds: tuple[int, ...] = (0, 1, 2)
    jobs: int = 1
    threads: int = 1
    pyg_cgconv: str | None = None
    mace: str = ".venv-mace/bin/python"
    nequip: str = ".venv-nequip/bin/python"
    pyg_cgconv_options: str = ""
    mace_options: str = ""
    nequip_options: str = ""
    from_json: Path | None = None

    def __post_init__(self):
        require_positive(self, "jobs", "threads")
        if not MAX_TIME_FORMAT.fullmatch(self.max_time) or self.seconds == 0:
            raise ValueError(f"max_time={self.max_time!r}: expected DD:HH:MM:SS, such as 00:00:10:00 for ten minutes")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds={list(self.seeds)}: expected different numbers of 0 or more, such as [0, 1, 2]")
        if (self.run_dir is None) == (self.from_json is None):
            raise ValueError(
                "expected either run_dir, a new folder, or from_json, the results of an earlier comparison"
            )

    @property
    def seconds(self) -> int:
        days, hours, minutes, seconds = map(int, self.max_time.split(":"))
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
