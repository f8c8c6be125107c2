"""A picture of the table: how close to the limit of the machine each contender comes."""

from __future__ import annotations

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("--plot needs matplotlib: pip install 'pyg-cgconv[train]'") from error

from .measure import ORDERS, limit

COLORS = {
    "pyg_cgconv ir_mul": "#08519c",
    "pyg_cgconv mul_ir": "#6baed6",
    "openequivariance": "#d94801",
    "openequivariance-det": "#fdae6b",
    "cuequivariance": "#238b45",
    "cuequivariance-fused_tp": "#74c476",
    "cuequivariance-naive": "#c7e9c0",
    "e3nn": "#969696",
    "e3nn-compiled": "#525252",
}
BAR, GAP, LABEL = 0.11, 0.3, 0.95
"""Inches of a bar's width, between groups, and for a group's label."""


def draw(report: dict, file: str) -> None:
    """One panel an order, a group of bars for each problem and graph, a colour for each contender; a contender without
    a time leaves its place empty."""
    rows = report["rows"]
    groups = list(dict.fromkeys((row["problem"], row["graph"]) for row in rows))
    contenders = [name for name in COLORS if any(row["peer"] == name and row["ms"] for row in rows)]
    pitch = max(BAR * len(contenders) + GAP, LABEL)
    left = {name: BAR * (i - (len(contenders) - 1) / 2) for i, name in enumerate(contenders)}

    figure = Figure(figsize=(max(6, 1.2 + pitch * len(groups)), 7), layout="constrained")
    panels = figure.subplots(len(ORDERS), sharex=True, sharey=True)
    for panel, order in zip(panels, ORDERS, strict=True):
        for name in contenders:
            timed = [row for row in rows if row["peer"] == name and order in row["ms"]]
            places = [pitch * groups.index((row["problem"], row["graph"])) + left[name] for row in timed]
            reached = [limit(row, order) / row["ms"][order] for row in timed]
            panel.bar(places, reached, BAR, color=COLORS[name], label=name)
        panel.axhline(1, color="black", linewidth=0.8, linestyle=":")
        panel.set_title(order.replace("_", " "), loc="left", fontsize="medium")
        panel.margins(x=0.01)
        panel.grid(axis="y", linewidth=0.4)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xticks([pitch * i for i in range(len(groups))], ["\n".join(group) for group in groups], fontsize=8)
    figure.supylabel("fraction of the limit")
    machine = report["machine"]
    figure.suptitle(f"{machine['device']}, copies at {machine['copy_GB_per_s'] / 1e3:.2f} TB/s, {rows[0]['dtype']}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(file, dpi=150)
