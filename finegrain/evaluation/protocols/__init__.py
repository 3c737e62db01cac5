"""The two protocols of fashion retrieval. Their metrics must not be compared with each other.

*Sampled* (Gao et al., "FashionBERT", SIGIR 2020, https://arxiv.org/abs/2005.09801): 1,000
queries, each with one right answer and 100 wrong ones of the same sub-category. Published lists
of candidates differ or were never fixed, so finegrain draws them once from hashes, saves them to
a file, and binds them to the pictures by a digest.
*Full gallery*: every text searches all pictures of the split, and every picture all texts.
"""

from finegrain.evaluation.protocols.candidates import (
    SUBCATEGORY,
    Candidates,
    draw_candidates,
    sample_ids,
)
from finegrain.evaluation.protocols.full_gallery import evaluate_full_gallery
from finegrain.evaluation.protocols.protocol_metrics import DEPTHS, ProtocolMetrics, chance
from finegrain.evaluation.protocols.sampled import SampledScores, evaluate_sampled, score_sampled

__all__ = [
    "DEPTHS",
    "SUBCATEGORY",
    "Candidates",
    "ProtocolMetrics",
    "SampledScores",
    "chance",
    "draw_candidates",
    "evaluate_full_gallery",
    "evaluate_sampled",
    "sample_ids",
    "score_sampled",
]
