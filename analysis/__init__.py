"""From activations to numbers: moments, directions, components, distances, and the tests that say what they are worth.

Arrays are ``(n_samples, width)`` or ``(n_tokens, width)``; labels are 1 for bad and 0 for good; groups are prompts.
"""

from .components import PCA, ContrastivePCA
from .directions import Plane, difference_of_means, massive_channels, plane
from .distance import Bhattacharyya, bhattacharyya, bhattacharyya_test
from .inference import auc, benjamini_hochberg, bootstrap_auc, grouped_folds, p_value, permuted_labels
from .moments import Moments
from .stage import analyze
from .table import sample_table

__all__ = [
    "PCA",
    "Bhattacharyya",
    "ContrastivePCA",
    "Moments",
    "Plane",
    "analyze",
    "auc",
    "benjamini_hochberg",
    "bhattacharyya",
    "bhattacharyya_test",
    "bootstrap_auc",
    "difference_of_means",
    "grouped_folds",
    "massive_channels",
    "p_value",
    "permuted_labels",
    "plane",
    "sample_table",
]
