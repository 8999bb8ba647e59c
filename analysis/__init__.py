"""From activations to numbers: moments, directions, components, distances, and the tests that say what they are worth.

Arrays are ``(n_samples, width)`` or ``(n_tokens, width)``; labels are 1 for bad and 0 for good; groups are prompts.
"""

from ..labeling.table import sample_table
from .components import PCA, ContrastivePCA
from .contrastive import Sweep, contrastive_sweep
from .covariance import (
    Gaussian,
    bhattacharyya_full,
    bhattacharyya_low_rank,
    bhattacharyya_shrunk,
    low_rank,
    shrunk_covariance,
)
from .directions import Plane, difference_of_means, massive_channels, plane
from .distance import Bhattacharyya, bhattacharyya, bhattacharyya_test
from .gaussianity import Gaussianity, diagnose
from .moments import Moments, coarse_channels
from .scatter import Scatter, stream_moments
from .stage import analyze
from .statistics.auc import auc
from .statistics.effects import effect_size
from .statistics.folds import grouped_folds
from .statistics.intervals import bootstrap_auc
from .statistics.multiple import benjamini_hochberg, family_p, resolvable
from .statistics.nulls import p_floor, p_value, permuted_labels
from .survey import map_survey
from .two_sample import TwoSampleTest, classifier_two_sample_test

__all__ = [
    "PCA",
    "Bhattacharyya",
    "ContrastivePCA",
    "Gaussian",
    "Gaussianity",
    "Moments",
    "Plane",
    "Scatter",
    "Sweep",
    "TwoSampleTest",
    "analyze",
    "auc",
    "benjamini_hochberg",
    "bhattacharyya",
    "bhattacharyya_full",
    "bhattacharyya_low_rank",
    "bhattacharyya_shrunk",
    "bhattacharyya_test",
    "bootstrap_auc",
    "classifier_two_sample_test",
    "coarse_channels",
    "contrastive_sweep",
    "diagnose",
    "difference_of_means",
    "effect_size",
    "family_p",
    "grouped_folds",
    "low_rank",
    "map_survey",
    "massive_channels",
    "p_floor",
    "p_value",
    "permuted_labels",
    "plane",
    "resolvable",
    "sample_table",
    "shrunk_covariance",
    "stream_moments",
]
