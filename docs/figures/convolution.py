"""Draws convolution.svg, the picture of the README, from convolution.csv.

python docs/figures/convolution.py
"""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
LONGEST = 10.0  # ms; longer bars are cut and say so
OURS, OTHERS = "#1f5fa8", "#b8bfc8"
NO_DATE = {"metadata": {"Date": None, "Creator": None}}
SUBTITLE = "Time in ms, shorter is better. MACE-medium, 353,280 edges, float32, one NVIDIA H200, PyTorch 2.11."


def main() -> None:
    lines = [line for line in (FOLDER / "convolution.csv").read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    orders = [column for column in rows[0] if column != "name"]
    plt.rcParams.update({"font.size": 10.5, "svg.hashsalt": "convolution", "font.family": "DejaVu Sans"})
    figure, panels = plt.subplots(len(orders), sharex=True, figsize=(7, 4.6), layout="constrained")
    for panel, order in zip(panels, orders, strict=True):
        written = [row[order] for row in rows]
        times = [float(time) for time in written]
        names = [row["name"] for row in rows]
        colors = [OURS, *[OTHERS] * (len(rows) - 1)]
        panel.barh(names, [min(time, LONGEST) for time in times], color=colors, height=0.72)
        for place, time in enumerate(times):
            cut = time > LONGEST
            weight = "bold" if place == 0 else "normal"
            panel.text(min(time, LONGEST) + 0.12, place, written[place], va="center", weight=weight)
            if cut:
                panel.text(LONGEST * 0.93, place, "//", va="center", ha="center", color="white", weight="bold", size=14)
        panel.set_title(order, loc="left", fontsize=10.5, weight="bold")
        panel.invert_yaxis()
        panel.set_xlim(0, LONGEST * 1.08)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.tick_params(left=False, bottom=False, labelbottom=False)
    figure.suptitle("One convolution and its derivatives", x=0.01, ha="left", weight="bold", fontsize=13)
    figure.supxlabel(SUBTITLE, x=0.01, ha="left", fontsize=9.5, color="#444444")
    file = FOLDER / "convolution.svg"
    figure.savefig(file, facecolor="white", pad_inches=0.12, bbox_inches="tight", **NO_DATE)
    file.write_text("\n".join(line.rstrip() for line in file.read_text().splitlines()) + "\n")


if __name__ == "__main__":
    main()
