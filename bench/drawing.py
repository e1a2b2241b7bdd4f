"""What the plots of the docs share: drawn at a width that a phone shows whole, on a white ground so that a dark page shows
them too, in colours that the colour-blind tell apart and that stand out from white; each line has a dash of its own as well.
"""

import contextlib

# Of Okabe and Ito's palette, those with a contrast of 3 to white (WCAG 2.1, 1.4.11); orange is darkened to that. The report's
# style sheet has the same.
BLUE, VERMILION, GREEN, PURPLE, OCHRE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07C00", "#1A1D21"
# For text.
GREY = "#5A626B"
# Inches; a phone shows 5 of them at about three quarters of their size, so that its text stays 10 pixels high.
WIDTH = 5.0


@contextlib.contextmanager
def panels(path, *heights):
    """Axes one above the other, of these heights in inches; written to `path` at the end, the same bytes for the same data."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "hgat",
        "font.size": 10.5,
        "axes.titlesize": 11.5,
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#DFE3E7",
        "legend.frameon": False,
    }
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(WIDTH, sum(heights)), height_ratios=heights, layout="constrained", facecolor="white"
    )
    figure.get_layout_engine().set(hspace=0.04, h_pad=0.1)
    yield axes
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)


def legend_below(axes, columns=1):
    """Under the axis' name, never on a curve."""
    from matplotlib.transforms import ScaledTranslation

    # The ticks' numbers and the axis' name are as high in every panel.
    below = axes.transAxes + ScaledTranslation(0, -43 / 72, axes.figure.dpi_scale_trans)
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, ncols=columns, borderaxespad=0, borderpad=0
    )
