from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.encoder import Encoded
from finegrain.errors import DataError, EvaluationError
from finegrain.evaluation.protocols import (
    Candidates,
    chance,
    draw_candidates,
    evaluate_full_gallery,
    evaluate_sampled,
    sample_ids,
    score_sampled,
)
from finegrain.evaluation.reranking import WEIGHTS
from finegrain.records import Matched, PictureTokens, Sample, Split
from finegrain.rerank import probability_of

DIM = 8


class Noisy:
    """An encoder whose embeddings depend on the file name or the text only."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def encode_images(self, sources, *, progress=False):
        return self._rows([(Path(source).stem.split("_")[0], str(source)) for source in sources])

    def encode_texts(self, captions, *, progress=False):
        return self._rows([(caption, caption) for caption in captions])

    def _rows(self, keys):
        rows = [_unit(f"product {product}") + self.noise * _unit(own) for product, own in keys]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


class Matching(Noisy):
    """The same with a match head, whose logits depend on the caption and the file only."""

    def __init__(self, noise: float) -> None:
        super().__init__(noise)
        self.asked: list[tuple[str, int]] = []

    def stream_images(self, sources, *, tokens=False, progress=False):
        rows = [_unit(f"tokens {source}") for source in sources]
        yield Encoded(
            positions=list(range(len(sources))),
            embeddings=self.encode_images(sources),
            problems=[],
            tokens=PictureTokens(
                codes=np.array(rows, np.float32)[:, None],
                scales=np.ones((len(rows), 1), np.float32),
            ),
        )

    def matching(self, caption):
        def match(pictures):
            self.asked.append((caption, len(pictures)))
            logits = 4 * pictures.codes[:, 0] @ _unit(f"words {caption}")
            return Matched(logits, logits - 50 * _unit(f"against {caption}")[0])

        return match


def _unit(key):
    row = np.random.default_rng(list(key.encode())).normal(size=DIM)
    return row / np.linalg.norm(row)


def shop(sizes=(6, 5, 1), views=2):
    """Products of each sub-category, with some pictures each."""
    samples = [
        Sample(
            image=Path(f"{kind}.{item}_{view}.jpg"),
            captions=(f"{kind}.{item}",),
            pid=100 * kind + item,
            metadata={"subcategory": f"kind {kind}"},
        )
        for kind, size in enumerate(sizes)
        for item in range(size)
        for view in range(views)
    ]
    return Split(name="val", samples=tuple(samples))


def literal_sampled(encoder, split, candidates):
    """Rank 1, 5 and 10 in both directions, by loops over queries and scores."""
    by_id = dict(zip(sample_ids(split.samples), split.samples, strict=True))
    results = {"text": [], "image": []}
    for query, names in candidates.lists.items():
        for direction, hits in results.items():
            scores = {}
            for name in names:
                picture, text = (query, name) if direction == "image" else (name, query)
                image = encoder.encode_images([by_id[picture].image])[0]
                words = encoder.encode_texts([by_id[text].captions[0]])[0]
                scores[name] = sum(float(a) * float(b) for a, b in zip(image, words, strict=True))
            better = [name for name in names if scores[name] > scores[query] + 1e-6]
            hits.append(1 + len(better))
    return {
        direction: [100 * sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10)]
        for direction, ranks in results.items()
    }


@given(
    st.lists(st.integers(1, 14), min_size=1, max_size=4).filter(lambda sizes: max(sizes) > 1),
    st.integers(0, 5),
    st.sampled_from([0.0, 1.0, 3.0]),
)
@settings(max_examples=15, deadline=None)
def test_the_sampled_protocol_equals_a_literal_loop(sizes, seed, noise):
    split, encoder = shop(sizes), Noisy(noise)
    candidates = draw_candidates(split, queries=12, negatives=7, seed=seed)
    result = evaluate_sampled(encoder, split, candidates)
    wanted = literal_sampled(encoder, split, candidates)
    for metrics, ranks in (
        (result.text_to_image, wanted["text"]),
        (result.image_to_text, wanted["image"]),
    ):
        assert [metrics.rank1, metrics.rank5, metrics.rank10] == pytest.approx(ranks)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3).filter(lambda sizes: max(sizes) > 1),
    st.integers(0, 5),
    st.sampled_from([0.1, 1.0, 1e6]),
)
@settings(max_examples=15, deadline=None)
def test_re_ranking_equals_a_literal_loop(sizes, seed, weight):
    split, encoder = shop(sizes), Matching(1.0)
    candidates = draw_candidates(split, queries=12, negatives=7, seed=seed)
    result = evaluate_sampled(encoder, split, candidates, weight=weight)
    by_id = dict(zip(sample_ids(split.samples), split.samples, strict=True))
    for metrics, of_text in ((result.text_to_image, True), (result.image_to_text, False)):
        places = []
        for query, names in candidates.lists.items():
            scores = {}
            for name in names:
                text, picture = (query, name) if of_text else (name, query)
                caption, image = by_id[text].captions[0], by_id[picture].image
                cosine = encoder.encode_texts([caption])[0] @ encoder.encode_images([image])[0]
                logit = 4 * _unit(f"tokens {image}") @ _unit(f"words {caption}")
                scores[name] = float(cosine) + weight * float(probability_of(np.array([logit]))[0])
            places.append(1 + sum(scores[name] > scores[query] + 1e-6 for name in names))
        ranks = [100 * np.mean([place <= k for place in places]) for k in (1, 5, 10)]
        assert [metrics.rank1, metrics.rank5, metrics.rank10] == pytest.approx(ranks)
    assert f"match head at weight {weight:g}" in result.protocol


def test_the_match_head_alone_orders_by_its_scores():
    """The scores also depend on the caption, so that the cosine has no further information."""
    split, encoder = shop((9, 7)), Matching(1.0)
    candidates = draw_candidates(split, queries=12, negatives=6)
    result = score_sampled(encoder, split, candidates).metrics(None)
    by_id = dict(zip(sample_ids(split.samples), split.samples, strict=True))

    def score(text, picture):
        caption, image = by_id[text].captions[0], by_id[picture].image
        logit = 4 * _unit(f"tokens {image}") @ _unit(f"words {caption}")
        return logit - 50 * _unit(f"against {caption}")[0]

    for metrics, of_text in ((result.text_to_image, True), (result.image_to_text, False)):
        places = []
        for query, names in candidates.lists.items():
            scores = {n: score(query, n) if of_text else score(n, query) for n in names}
            places.append(sum(score >= scores[query] for score in scores.values()))
        assert metrics.rank1 == pytest.approx(100 * np.mean([place == 1 for place in places]))
    assert result.protocol.endswith("match head alone")


def test_each_pair_is_scored_once_in_small_batches():
    split, encoder = shop((40,), views=1), Matching(0)
    score_sampled(encoder, split, draw_candidates(split, negatives=39))
    assert sum(size for _, size in encoder.asked) == 40 * 40
    assert max(size for _, size in encoder.asked) <= 16


def test_the_match_head_is_not_used_without_a_weight():
    split, encoder = shop((6, 5)), Matching(1.0)
    candidates = draw_candidates(split)
    assert evaluate_sampled(encoder, split, candidates) == evaluate_sampled(
        Noisy(1.0), split, candidates
    )
    assert encoder.asked == []


def test_the_best_weight_is_the_smallest_with_the_highest_map():
    split = shop((14, 12))
    candidates = draw_candidates(split)
    certain = score_sampled(Matching(0), split, candidates)
    assert certain.best_weight() == 0
    scores = score_sampled(Matching(3.0), split, candidates)

    def value(weight):
        results = scores.metrics(weight)
        return results.text_to_image.mAP + results.image_to_text.mAP

    assert value(scores.best_weight()) == max(map(value, WEIGHTS))


def test_the_full_gallery_equals_a_literal_loop():
    split, encoder = shop((5, 4), views=3), Noisy(2.0)
    result = evaluate_full_gallery(encoder, split)
    images = encoder.encode_images([sample.image for sample in split.samples])
    pids = [sample.pid for sample in split.samples]
    hits = []
    for pid in dict.fromkeys(pids):
        caption = next(sample.captions[0] for sample in split.samples if sample.pid == pid)
        scores = images @ encoder.encode_texts([caption])[0]
        hits.append(pids[int(np.argmax(scores))] == pid)
    assert result.text_to_image.rank1 == pytest.approx(100 * np.mean(hits))
    assert result.text_to_image.num_queries == result.image_to_text.num_gallery == 9
    assert result.text_to_image.num_gallery == result.image_to_text.num_queries == 27


def test_candidates_are_other_products_of_the_subcategory():
    split = shop((30, 20, 1), views=3)
    by_id = dict(zip(sample_ids(split.samples), split.samples, strict=True))
    candidates = draw_candidates(split, queries=40, negatives=10)
    assert len(candidates.lists) == 40
    queries = [by_id[query].pid for query in candidates.lists]
    assert len(set(queries)) == 40
    for query, names in candidates.lists.items():
        assert len(names) == len(set(names)) == 11
        assert query in names
        assert len({by_id[name].pid for name in names}) == 11
        assert {by_id[name].metadata["subcategory"] for name in names} == {
            by_id[query].metadata["subcategory"]
        }
    assert len({names.index(query) for query, names in candidates.lists.items()}) > 5


def test_lists_depend_on_the_seed_only():
    split = shop((12, 9))
    candidates = draw_candidates(split, negatives=4, seed=3)
    assert draw_candidates(split, negatives=4, seed=3) == candidates
    assert draw_candidates(split, negatives=4, seed=4).lists != candidates.lists
    turned = replace(split, samples=split.samples[::-1])
    assert dict(draw_candidates(turned, negatives=4, seed=3).lists) == dict(candidates.lists)


def test_lists_are_the_same_on_every_machine():
    assert draw_candidates(shop((4, 3)), negatives=2).digest == "d875db49f7a9"


def test_products_that_cannot_be_queries_are_problems():
    split = shop((2, 1))
    nameless = replace(split.samples[0], metadata={}, pid=7)
    blank = replace(split.samples[0], metadata={"subcategory": ""}, pid=8)
    candidates = draw_candidates(replace(split, samples=(*split.samples, nameless, blank)))
    assert sorted(str(problem) for problem in candidates.problems)[1:] == [
        "7/0.0_0.jpg: has no subcategory",
        "8/0.0_0.jpg: has no subcategory",
    ]
    assert "is the only product of the subcategory 'kind 1'" in str(candidates.problems)
    assert len(candidates.lists) == 2
    with pytest.raises(EvaluationError, match=r"share a subcategory .* is the only product"):
        draw_candidates(shop((1, 1)))
    with pytest.raises(EvaluationError, match="the split is empty"):
        draw_candidates(Split(name="val", samples=()))


@pytest.mark.parametrize("wrong", [{"queries": 0}, {"negatives": 0}])
def test_too_small_numbers_are_refused(wrong):
    with pytest.raises(EvaluationError, match="1 negative or more"):
        draw_candidates(shop(), **wrong)


def test_saved_lists_are_read_back(tmp_path):
    candidates = draw_candidates(shop((6, 5)), negatives=3)
    candidates.save(tmp_path / "lists.json")
    loaded = Candidates.load(tmp_path / "lists.json")
    assert loaded == candidates
    assert loaded.digest == candidates.digest


def test_candidates_of_other_samples_are_refused():
    split, candidates = shop((6, 5)), draw_candidates(shop((6, 5)), negatives=3)
    with pytest.raises(EvaluationError, match="samples that the candidates were drawn from"):
        evaluate_sampled(Noisy(0), shop((6, 4)), candidates)
    query, names = next(iter(candidates.lists.items()))
    changed = replace(candidates, lists={query: (*names, "no/such.jpg")})
    with pytest.raises(EvaluationError, match=r"got 'no/such\.jpg' and 0 more"):
        evaluate_sampled(Noisy(0), split, changed)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"}, {"version": 2}, {"lists": {}}, {"lists": []}, {"lists": {"a": ["b"]}},
        {"lists": {"a": ["a", "a"]}}, {"lists": {"a": 3}}, {"seed": "x"},
    ],
)  # fmt: skip
def test_files_without_lists_are_refused(tmp_path, change):
    path = tmp_path / "lists.json"
    draw_candidates(shop()).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match="expected lists of candidates"):
        Candidates.load(path)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "[" * 5000])
def test_missing_and_other_files_are_refused(tmp_path, content):
    path = tmp_path / "lists.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match="Draw them with draw_candidates"):
        Candidates.load(path)


def test_an_empty_full_gallery_is_refused():
    with pytest.raises(EvaluationError, match="expected samples in split val, got none"):
        evaluate_full_gallery(Noisy(0), Split(name="val", samples=()))


def test_the_printed_result_names_the_protocol_and_the_chance_level():
    split = shop((12, 5))
    text = str(evaluate_sampled(Noisy(0), split, draw_candidates(split, negatives=10)))
    assert "sampled: 1 right of 11 candidates of one subcategory, 17 queries" in text
    assert "(5 with fewer candidates), seed 0, lists " in text
    assert text.count("by chance") == 2
    assert "full gallery: 17 texts, one a product, and 34 pictures" in str(
        evaluate_full_gallery(Noisy(0), split)
    )


def test_figures_of_a_result_are_json():
    split = shop((4,))
    result = evaluate_sampled(Noisy(0), split, draw_candidates(split)).to_dict()
    assert json.loads(json.dumps(result))["text_to_image"]["rank1"] == 100


def test_the_chance_level_equals_that_of_the_published_protocol():
    """0.99, 4.95 and 9.90 % among 101 candidates."""
    levels = chance(np.ones(5, np.int64), np.full(5, 101))
    assert [round(level, 2) for level in levels.values()] == [0.99, 4.95, 9.90]


@given(st.integers(1, 6), st.integers(0, 12))
@settings(max_examples=20, deadline=None)
def test_the_chance_level_equals_the_result_of_guessing(right, wrong):
    rng = np.random.default_rng(right * 100 + wrong)
    size = right + wrong
    best = np.array([1 + min(rng.permutation(size)[:right]) for _ in range(3000)])
    for k, level in chance(np.array([right]), np.array([size])).items():
        assert level == pytest.approx(100 * np.mean(best <= k), abs=4)
