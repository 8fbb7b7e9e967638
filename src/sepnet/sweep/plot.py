"""The picture of a sweep: accuracy against parameters, MACs and seconds, and the front of each."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from sepnet.report.theme import WIDTH, current, settle, theme
from sepnet.sweep.tables import COSTS, Entry, front

LABELS = {"parameters": "parameters", "macs": "MACs", "seconds": "seconds of training"}
MOST_NAMES = 8
"""On a front; more would cover each other."""


def fronts(rows: Sequence[Entry], images: str) -> Figure:
    """Draw rows with finished seeds, each a point at its means, and the line of those that none beats.

    ``images`` are those that they were scored on, in words.
    """
    with theme(current()) as palette:
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        for axes, cost in zip(figure.subplots(1, len(COSTS), sharey=True), COSTS, strict=True):
            shown = [entry for entry in rows if entry.cost(cost) < float("inf")]
            best = front(shown, cost)
            axes.plot(
                [entry.cost(cost) for entry in shown],
                [100 * entry.accuracy for entry in shown],
                linestyle="",
                marker="o",
                markersize=4,
                color=palette.muted,
            )
            axes.step(
                [entry.cost(cost) for entry in best],
                [100 * entry.accuracy for entry in best],
                where="post",
                marker="o",
                color=palette.series[0],
            )
            for entry in best[-MOST_NAMES:] if len(best) <= MOST_NAMES else best[-1:]:
                axes.annotate(
                    entry.row.name,
                    (entry.cost(cost), 100 * entry.accuracy),
                    xytext=(0, 5),
                    textcoords="offset points",
                    ha="right",
                    fontsize=9,
                )
            axes.set_xlabel(LABELS[cost])
            axes.margins(0.1, 0.12)
        figure.axes[0].set_ylabel(f"{images} accuracy, %")
        return settle(figure)
