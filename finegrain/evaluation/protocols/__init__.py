"""The two protocols of fashion retrieval, whose figures must never be compared.

*Sampled* (Gao et al., "FashionBERT", SIGIR 2020): 1,000 queries, each with one right answer
among 100 others of the same sub-category. Published lists of candidates differ or were never
fixed, so here they are drawn once from hashes, kept in a file, and bound to the pictures.
*Full gallery*: every text against every picture of the split, and back.
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
