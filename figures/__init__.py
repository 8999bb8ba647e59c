"""Draw results that others computed: each function takes results and an Axes, and returns the Axes.

Steps run as the generation does, from the noisiest on the left to the last on the right. What cannot be told from
chance is hatched in a grid, and has an open marker elsewhere. Colours, sizes and files are in `style`.
"""

from .answers import power_curve, reliability
from .arms import arms_forest, dose_response, rate_against_cost
from .calls import PAPERS, paper
from .clouds import label_legend, scatter
from .comparing import block_matrix, depth_map, profiles, replicated
from .effects import effects
from .following import following
from .grids import grid, survey_map
from .lines import curves, forest, rates, series
from .matrices import confusion, cosines, transfer
from .mosaics import mosaic
from .settling import decided_share, filmstrip
from .sheets import contact_sheet
from .style import BAD, BLOCK_STYLE, COLUMN, FORMATS, GOOD, LEVEL, LINE_STYLES, SERIES, STYLE, figure, save
from .watching import score_limit, watch_frame, watch_strip

__all__ = [
    "BAD",
    "BLOCK_STYLE",
    "COLUMN",
    "FORMATS",
    "GOOD",
    "LEVEL",
    "LINE_STYLES",
    "PAPERS",
    "SERIES",
    "STYLE",
    "arms_forest",
    "block_matrix",
    "confusion",
    "contact_sheet",
    "cosines",
    "curves",
    "decided_share",
    "depth_map",
    "dose_response",
    "effects",
    "figure",
    "filmstrip",
    "following",
    "forest",
    "grid",
    "label_legend",
    "mosaic",
    "paper",
    "power_curve",
    "profiles",
    "rate_against_cost",
    "rates",
    "replicated",
    "reliability",
    "save",
    "scatter",
    "score_limit",
    "series",
    "survey_map",
    "transfer",
    "watch_frame",
    "watch_strip",
]
