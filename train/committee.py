"""Committees: one training after the other, from other weights or on other frames, and how well their spread tells
their error."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from scipy.stats import spearmanr
from torch_geometric.data import Data

from pyg_cgconv.potential import Potential
from train.checkpoints import LAST
from train.columns import concatenated, elements, heads_of, selected, with_label
from train.data import Splits, labels
from train.division import with_all_labels_first
from train.fitting import session, working_in, writing_in
from train.html_report import write_report
from train.loss import QUANTITIES
from train.metrics import MEV_PER_EV, Labels, errors, trivial_prediction
from train.options import FitOptions, ModelOptions, RunOptions, TuningOptions
from train.outputs import written_whole
from train.plots import parity_plot
from train.potential_report import committee_report
from train.predictions import as_labels
from train.report import error_rows, versions, write_json
from train.run import fit_and_report, open_run_folder
from train.run_log import say
from train.spread import predict_with_spread
from train.trained import CONFIG, POTENTIAL, written_options

DRAWS = 1000  # at random, of frames that have all elements and labels, before this is given up


@dataclass(frozen=True, kw_only=True)
class CommitteeOptions:
    """Committee: several potentials.

    Args:
        committee: potentials to train, one after the other, in run_dir/member-0, member-1 ...; 0 for a single one. Each
            has a seed of its own, which is seed plus its number.
        committee_frames: what members are trained on. same: the training frames. shuffle: training and validation
            frames are divided anew for each. bootstrap: as many training frames, drawn with replacement. All have the
            same test frames.
        member: the number of the only member to train, into run_dir itself, such as on a machine of its own.
    """

    committee: int = 0
    committee_frames: Literal["same", "shuffle", "bootstrap"] = "same"
    member: int | None = None

    def __post_init__(self):
        if self.committee < 0 or self.committee == 1:
            raise ValueError(f"committee={self.committee}: expected 2 or more members, or 0 for a single potential")
        if self.member is not None and not 0 <= self.member < self.committee:
            raise ValueError(
                f"member={self.member}: expected a number from 0 to below committee={self.committee}; "
                "give --committee, too"
            )
        if self.committee_frames != "same" and not self.committee:
            raise ValueError(
                f"committee_frames={self.committee_frames!r}: there is no committee, give its size by --committee"
            )
        if self.committee_frames == "shuffle" and getattr(self, "val_file", None):
            raise ValueError(
                "committee_frames='shuffle' divides training and validation frames anew, but val_file gives the "
                "validation frames: leave one of them out, or take --committee_frames bootstrap"
            )

    @property
    def trains_all(self) -> bool:
        return bool(self.committee) and self.member is None

    def seeded(self, run: RunOptions) -> RunOptions:
        """``run`` with the seed of the member."""
        return replace(run, seed=run.seed + (self.member or 0))

    def frames_of_member(self, splits: Splits) -> Splits:
        """What the member is trained on, of what all of them have."""
        if self.member is None or self.committee_frames == "same":
            return splits
        random = torch.Generator().manual_seed(self.member)
        if self.committee_frames == "bootstrap":
            count, frames, labelled = 0, splits.train, labels_by_head(splits.train, len(splits.heads))
            orders = (torch.randint(len(frames), (len(frames),), generator=random).numpy() for _ in range(DRAWS))
        else:
            count, frames = len(splits.validation), concatenated(splits.train, splits.validation)
            labelled = labels_by_head(frames, len(splits.heads))
            shuffled = (torch.randperm(len(frames), generator=random).numpy() for _ in range(DRAWS))
            orders = (with_all_labels_first(order, count, labelled) for order in shuffled)
        wanted = kinds(splits.train, labels_by_head(splits.train, len(splits.heads)))
        for order in orders:
            train = selected(frames, order[count:])
            if kinds(train, labelled[order[count:]]) == wanted:
                validation = selected(frames, order[:count]) if count else splits.validation
                return replace(splits, train=train, validation=validation)
        raise ValueError(
            "committee_frames: random draws of the training frames lack some elements or labels, because these occur "
            "in very few frames; take --committee_frames same"
        )


def labels_by_head(frames: Sequence[Data], heads: int) -> np.ndarray:
    """Which labels each frame has, (frames, labels x heads); those of different heads are different labels."""
    own = heads_of(frames)[:, None] == np.arange(max(1, heads))
    return np.concatenate([with_label(frames, name)[:, None] & own for name in sorted(QUANTITIES)], axis=1)


def kinds(frames: Sequence[Data], labelled: np.ndarray) -> tuple[list[int], list[int]]:
    """Elements and labels that occur in ``frames``."""
    return elements(frames).tolist(), np.flatnonzero(labelled.any(axis=0)).tolist()


def is_committee(folder: Path) -> bool:
    """Whether this is the folder of a committee, not of a single training."""
    config = written_options(folder / CONFIG)
    return bool(config.get("committee")) and config.get("member") is None


def train_committee(
    splits: Splits,
    options: CommitteeOptions,
    model: ModelOptions,
    fit: FitOptions,
    tuning: TuningOptions,
    run: RunOptions,
    *,
    folder_name: str,
    config: str,
) -> dict:
    """Trains all members and returns what is written to ``metrics.json`` of the committee.

    With ``run.resume``, members that have begun go on, to their end or a later one, and others begin.

    Args:
        splits: the frames of all members.
        folder_name: of the results, without a run_dir.
        config: all options as YAML.
    """
    if run.devices > 1 or run.nodes > 1:
        raise ValueError(
            f"committee={options.committee} with devices={run.devices} and nodes={run.nodes}: members are trained on "
            "one device each; give --member 0, then --member 1 ..., to train each of them on several"
        )
    folder = open_run_folder(run, "frames", folder_name, config)
    members: list[dict] = []
    with working_in(folder):
        for number, one in each_member(options):
            place = folder / f"member-{number}"
            say(f"member {number} of {options.committee}")
            begin_member(place, one, config)
            resumed = place if run.resume and (place / LAST).exists() else None
            own = replace(one.seeded(run), run_dir=place, resume=resumed)
            with session(own), writing_in(place):
                metrics = fit_and_report(one.frames_of_member(splits), place, model, fit, own, tuning)
            members.append({"folder": place.name, "seed": own.seed, **metrics})
        return report(folder, splits, members, fit.batch_size)


def each_member(options: CommitteeOptions) -> Iterator[tuple[int, CommitteeOptions]]:
    return ((number, replace(options, member=number)) for number in range(options.committee))


def begin_member(folder: Path, options: CommitteeOptions, config: str) -> None:
    """Its folder, with the options that train this member again."""
    folder.mkdir(exist_ok=True)
    own = yaml.safe_load(config) | {"member": options.member, "run_dir": str(folder)}
    with written_whole(folder / CONFIG) as unfinished:
        unfinished.write_text(yaml.safe_dump(own, sort_keys=False))


def report(folder: Path, splits: Splits, members: list[dict], batch_size: int) -> dict:
    """Errors of the mean of all members on the test frames, and what their spread says of them; writes all of it."""
    potentials = [Potential.load(folder / member["folder"] / POTENTIAL) for member in members]
    reference = labels(splits.test, splits.heads)
    predictions = list(predict_with_spread(potentials, splits.test, batch_size, reference.has("energies")))
    predicted = as_labels([mean for mean, _ in predictions], splits.test)
    spread = [of_frame.forces for _, of_frame in predictions if of_frame.forces is not None]
    metrics = {
        "data": splits.name,
        "committee": len(members),
        "frames": splits.sizes(),
        "seconds": sum(member["seconds"] for member in members),
        "epochs": sum(member["epochs"] for member in members),
        "test": errors(predicted, reference),
        "baseline": errors(trivial_prediction(labels(splits.train, splits.heads, ["energy"]), reference), reference),
        "spread": spread_and_error(predicted, reference, np.concatenate(spread)) if spread else {},
        "members": [{name: member[name] for name in ("folder", "seed", "seconds", "test")} for member in members],
        "versions": versions(),
    }
    write_json(folder / "metrics.json", metrics)
    title = f"{splits.name}: mean of {len(members)} potentials, {len(splits.test)} test frames"
    parity_plot(folder / "parity.png", predicted, reference, title)
    write_report(folder, committee_report(folder, metrics, splits, predicted))
    say(describe(metrics, folder))
    return metrics


def spread_and_error(predicted: Labels, reference: Labels, spread: np.ndarray) -> dict[str, float]:
    """What the spread (atoms,) of forces, eV/Angstrom, tells of their error, over the atoms that have a label.

    ``rank_correlation`` is Spearman's: 1 where the atoms of larger spread are those of larger error.
    """
    if predicted.forces is None or reference.forces is None:
        return {}
    error = np.linalg.norm(predicted.forces - reference.forces, axis=1)
    known = np.isfinite(error)
    return {
        "forces_rms_spread_meV_per_A": MEV_PER_EV * float(np.sqrt(np.square(spread[known]).mean())),
        "forces_rms_error_meV_per_A": MEV_PER_EV * float(np.sqrt(np.square(error[known]).mean())),
        "forces_rank_correlation": float(spearmanr(spread[known], error[known]).statistic),
    }


def describe(metrics: dict, folder: Path) -> str:
    """The errors of the committee and of its members, for a person."""
    rows = {f"mean of {metrics['committee']} potentials, test frames": metrics["test"]}
    rows |= {member["folder"]: without_elements(member["test"]) for member in metrics["members"]}
    lines = ["", error_rows(rows), ""]
    if metrics["spread"]:
        spread, error, rank = metrics["spread"].values()
        lines.append(
            f"forces of an atom: root mean square spread {spread:.1f}, error {error:.1f} meV/Å; rank correlation "
            f"{rank:.2f} (1 if the spread ranks atoms as the error does)"
        )
    return "\n".join([*lines, f"results in {folder}"])


def without_elements(test: dict) -> dict:
    return {name: value for name, value in test.items() if name != "species"}
