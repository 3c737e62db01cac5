"""Re-ranking: the exported match head compared with the eager one, and a search with a full
sort."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import finegrain
from finegrain.encoder import Encoder
from finegrain.errors import GalleryError, PlanError, QueryError
from finegrain.evaluation.reranking import WEIGHTS, score_candidates
from finegrain.exporters import Int8
from finegrain.exporters.match_export import MatchExport
from finegrain.exporters.to_onnx import image_graph_with_tokens, match_graph, text_graph
from finegrain.gallery import Gallery
from finegrain.gallery.sqlite.tokens import TokenFile
from finegrain.methods import FashionBert, FashionBertConfig
from finegrain.methods.match_head import from_codes, to_codes
from finegrain.models.joint_bert import BertConfig
from finegrain.models.patches import PatchConfig
from finegrain.plan import IMAGE, MATCH, TEXT, TOKENIZER, Plan, write_plan
from finegrain.recipe import Recipe
from finegrain.records import Sample
from finegrain.rerank import RerankBy
from finegrain.runs.run import eager_encoder
from finegrain.search.matches import Matches
from finegrain.search.searcher import Searcher

QUERY = "woman in red coat"
WEIGHT = 0.5


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Recipe) -> Recipe:
    towers = tiny_recipe.method
    method = FashionBertConfig(
        image=towers.image,
        text=towers.text,
        embed_dim=towers.embed_dim,
        patches=PatchConfig().tiny(),
        joint=BertConfig().tiny(),
        masked_patches=1,
    )
    return replace(tiny_recipe, method=method, losses={"sdm": 1.0, "tia": 1.0})


@pytest.fixture(scope="module")
def method(recipe: Recipe) -> FashionBert:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        built = recipe.method.build(recipe.losses).eval()
    assert isinstance(built, FashionBert)
    with (
        torch.no_grad()
    ):  # with initial weights, the head would give all pictures nearly the same logit
        for weight in built.joint.parameters():
            weight *= 2.5 if weight.ndim > 1 else 1
        built.match_head.weight *= 50
        words = recipe.method.text.tokenizer().encode([QUERY])
        drawn = torch.Generator().manual_seed(0)
        size = (8, 3, recipe.method.image.height, recipe.method.image.width)
        logits, _ = built.match_of(
            torch.from_numpy(words.ids),
            torch.from_numpy(words.eot),
            built.match_tokens(torch.randint(0, 256, size, dtype=torch.uint8, generator=drawn)),
        )
        built.match_head.bias[1] -= logits.mean()
    return built


@pytest.fixture(scope="module")
def match_plan(
    tiny_plan: Path, method: FashionBert, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    image, text, opset = recipe.method.image, recipe.method.text, 18
    with torch.inference_mode():
        pixels = torch.zeros(1, 3, image.height, image.width, dtype=torch.uint8)
        _, tokens, width = method.match_tokens(pixels).shape
    members = {
        TEXT: text_graph(method, context_length=text.context_length, opset=opset),
        IMAGE: image_graph_with_tokens(method, height=image.height, width=image.width, opset=opset),
        MATCH: match_graph(
            method,
            tokens=tokens,
            width=width,
            context_length=text.context_length,
            opset=opset,
        ),
        TOKENIZER: Plan(tiny_plan).take(TOKENIZER),
    }
    manifest = replace(
        Plan(tiny_plan).manifest,
        method="fashionbert",
        match={"tokens": tokens, "width": width, "weight": WEIGHT},
    )
    path = tmp_path_factory.mktemp("match") / "model.plan"
    write_plan(path, manifest, members)
    return path


@pytest.fixture
def plan(match_plan: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(match_plan, tmp_path / "model.plan"))


@pytest.fixture
def filled(plan: Path, crops: Path) -> Path:
    """A plan with a gallery of all crops beside it."""
    with Searcher(plan, threads=1) as searcher:
        searcher.add(crops, progress=False)
    return plan


def answer(plan: Path, k: int = 5, rerank_k: int = 64, by: RerankBy = "both") -> Matches:
    with Searcher(plan, threads=1, rerank="match", rerank_k=rerank_k, rerank_by=by) as searcher:
        return searcher.query(QUERY, k)


def literal(
    plan: Path, recipe: Recipe, method: FashionBert, depth: int, by: RerankBy = "both"
) -> list[tuple[str, float]]:
    """Path and score of every picture, by the eager model, one pair at a time."""
    encoder = eager_encoder(recipe, method, torch.device("cpu"))
    with Searcher(plan, threads=1) as searcher:
        first = searcher.query(QUERY, len(searcher.gallery))
    words = encoder.tokenizer.encode([QUERY])
    scored = []
    for match in first:
        score = match.score
        if match.rank <= depth:
            pixels = torch.from_numpy(encoder.transform(match.open()))[None]
            with torch.inference_mode():
                tokens = from_codes(*to_codes(method.match_tokens(pixels)))
                logit, _ = method.match_of(
                    torch.from_numpy(words.ids), torch.from_numpy(words.eot), tokens
                )
            probability = float(torch.sigmoid(logit.double()))
            # Above every cosine, in the order of the logits.
            score = score + WEIGHT * probability if by == "both" else 1e6 + float(logit)
        scored.append((str(match.image), score))
    return sorted(scored, key=lambda pair: -pair[1])


@pytest.mark.parametrize(("k", "rerank_k"), [(1, 64), (5, 64), (5, 3), (12, 4), (3, 1)])
def test_a_re_ranked_search_equals_scoring_every_pair(
    filled: Path, recipe: Recipe, method: FashionBert, k: int, rerank_k: int
) -> None:
    wanted = literal(filled, recipe, method, rerank_k)
    got = answer(filled, k, rerank_k)
    assert [match.image for match in got] == [image for image, _ in wanted[:k]]
    assert [match.rank for match in got] == list(range(1, k + 1))
    for match, (_, score) in zip(got, wanted, strict=False):
        if match.match is not None:
            assert match.score + WEIGHT * match.match == pytest.approx(score, abs=2e-3)


@pytest.mark.parametrize(("k", "rerank_k"), [(1, 64), (5, 64), (5, 3), (12, 4)])
def test_a_search_by_the_match_head_alone_has_the_order_of_its_logits(
    filled: Path, recipe: Recipe, method: FashionBert, k: int, rerank_k: int
) -> None:
    wanted = literal(filled, recipe, method, rerank_k, "match")
    got = answer(filled, k, rerank_k, "match")
    assert [match.image for match in got] == [image for image, _ in wanted[:k]]
    assert [match.match is not None for match in got] == [i < rerank_k for i in range(k)]


def test_the_re_ranker_changes_the_order(filled: Path) -> None:
    with Searcher(filled, threads=1) as searcher:
        first = searcher.query(QUERY, 12)
    assert [m.image for m in first] != [m.image for m in answer(filled, 12)]
    assert all(m.match is None for m in first)


def test_kept_tokens_give_the_same_answer(filled: Path) -> None:
    fresh = answer(filled)
    assert answer(filled) == fresh
    with Searcher(filled, threads=1, rerank="match") as searcher:
        assert searcher.prepare(progress=False).num_encoded == 0
        Path(f"{searcher.gallery.path}.tokens").unlink()  # the file of tokens may be lost
    assert answer(filled) == fresh


def test_preparing_computes_each_picture_once_and_reports_the_size(filled: Path) -> None:
    with Searcher(filled, threads=1, rerank="match") as searcher:
        prepared = searcher.prepare(progress=False)
        again = searcher.prepare(progress=False)
        size = Path(f"{searcher.gallery.path}.tokens").stat().st_size
    assert (prepared.num_encoded, again.num_encoded) == (12, 0)
    assert 0 < prepared.num_bytes == again.num_bytes <= size
    assert str(prepared).startswith("prepared 12 pictures")


def test_tokens_of_deleted_pictures_are_deleted(filled: Path) -> None:
    with Searcher(filled, threads=1, rerank="match") as searcher:
        searcher.prepare(progress=False)
        gone = list(searcher.gallery)[:2]
        searcher.gallery.delete(gone)
        searcher.prepare(progress=False)
        kept = searcher._reranker._token_file.ids()  # type: ignore[union-attr]
    assert sorted(kept) == sorted(set(range(1, 13)) - set(gone))


def test_a_new_gallery_does_not_get_the_old_ones_tokens(filled: Path, crops: Path) -> None:
    with Searcher(filled, threads=1, rerank="match") as searcher:
        searcher.prepare(progress=False)
        gallery = searcher.gallery.path
    for path in gallery.parent.glob(f"{gallery.name}*"):
        if path.suffix != ".tokens":
            path.unlink()
    pictures = sorted(crops.iterdir())
    with Searcher(filled, threads=1) as searcher:
        searcher.add(pictures[::-1], progress=False)  # the same ids with other pictures
    stale = answer(filled)
    Path(f"{gallery}.tokens").unlink()
    assert answer(filled) == stale


def test_a_missing_picture_is_not_re_ranked(filled: Path, tmp_path: Path) -> None:
    with Searcher(filled, threads=1) as searcher:
        lost = tmp_path / "lost.png"
        shutil.copy(searcher.query(QUERY, 1)[0].image, lost)  # type: ignore[arg-type]
        (added,) = searcher.add(lost, progress=False).ids
    lost.unlink()
    got = answer(filled, 13)
    assert {match.id: match.match for match in got}[added] == 0.0
    with Searcher(filled, threads=1, rerank="match") as searcher:
        prepared = searcher.prepare(progress=False)
    assert [problem.where for problem in prepared.problems] == [str(lost)]
    assert "cannot be read" in str(prepared)


def test_a_query_by_picture_is_not_re_ranked(filled: Path, crops: Path) -> None:
    picture = sorted(crops.iterdir())[3]
    with Searcher(filled, threads=1) as searcher:
        first = searcher.query(picture, 5)
    with Searcher(filled, threads=1, rerank="match") as searcher:
        assert searcher.query(picture, 5) == first


def test_filters_and_groups_apply_to_both_stages(plan: Path, crops: Path) -> None:
    with Searcher(plan, threads=1, rerank="match") as searcher:
        pictures = sorted(crops.iterdir())
        columns = [{"pid": i % 3, "half": i // 6} for i in range(len(pictures))]
        searcher.add(pictures, columns, progress=False)
        result = searcher.query(QUERY, 5, where="half = 1", group_by="pid")
    assert len(result) == 3
    assert {match.metadata["half"] for match in result} == {1}
    assert len({match.pid for match in result}) == 3


def test_a_plan_without_a_head_is_refused(tiny_plan: Path, tmp_path: Path) -> None:
    plain = shutil.copy(tiny_plan, tmp_path / "plain.plan")
    with pytest.raises(PlanError, match=r"no match\.onnx"):
        Searcher(plain, rerank="match")
    with Searcher(plain) as searcher, pytest.raises(PlanError, match="rerank='match'"):
        searcher.prepare()


def test_re_ranking_of_a_model_without_a_head_cannot_be_evaluated(tiny_plan: Path) -> None:
    with pytest.raises(PlanError, match="no match head"):
        finegrain.evaluate(tiny_plan, rerank_k=4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rerank": "best"},
        {"rerank": "match", "rerank_k": 0},
        {"rerank": "match", "rerank_by": "cosine"},
        {"rerank_by": "match"},
    ],
)
def test_wrong_arguments_are_errors(plan: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(QueryError, match="rerank"):
        Searcher(plan, **wrong)  # type: ignore[arg-type]


def test_an_empty_gallery_is_an_error(plan: Path) -> None:
    with (
        Searcher(plan, rerank="match") as searcher,
        pytest.raises(GalleryError, match="no gallery"),
    ):
        searcher.query(QUERY)


def test_a_reindexed_gallery_gets_new_tokens(filled: Path, tmp_path: Path) -> None:
    """Tokens of another plan cannot be used, so the file is rewritten."""
    with Searcher(filled, threads=1, rerank="match") as searcher:
        searcher.prepare(progress=False)
        path = Path(f"{searcher.gallery.path}.tokens")
        shape = searcher.manifest.match
        assert shape is not None
    with TokenFile(path, fingerprint="other", tokens=int(shape["tokens"]), width=8) as kept:
        assert kept.ids() == {}


@pytest.fixture(scope="module")
def match_export(method: FashionBert, recipe: Recipe, crops: Path) -> MatchExport:
    eager = eager_encoder(recipe, method, torch.device("cpu"))
    samples = [
        Sample(image=path, captions=(f"a red coat {i}", "two"), pid=i)
        for i, path in enumerate(sorted(crops.iterdir()))
    ]
    return MatchExport(method, eager, samples)


@pytest.fixture(scope="module", params=[18, 23])
def head_graph(match_export: MatchExport, recipe: Recipe, request: pytest.FixtureRequest) -> bytes:
    length = recipe.method.text.context_length
    return match_export.graph(context_length=length, opset=request.param)


@pytest.mark.parametrize("precision", [None, Int8()])
def test_the_exported_head_agrees(
    match_plan: Path,
    match_export: MatchExport,
    head_graph: bytes,
    tmp_path: Path,
    precision: Int8 | None,
) -> None:
    plan = Plan(match_plan)
    members = {name: plan.take(name) for name in (TEXT, IMAGE, TOKENIZER)}
    members[MATCH] = head_graph if precision is None else precision.lower(head_graph)
    write_plan(tmp_path / "x.plan", replace(plan.manifest, match=match_export.manifest), members)
    report = match_export.compare(Encoder.from_plan(Plan(tmp_path / "x.plan"), threads=1))
    assert report.num_pairs == 12 * 24
    # Weights for which a random head distinguishes pictures also make it sensitive.
    assert report.probability_error < (0.05 if precision is None else 0.2)
    profile = finegrain.ExportProfile(name="x", max_drift=100.0, max_match_error=0.2)
    assert report.failures(profile) == []
    strict = replace(profile, max_match_error=report.probability_error / 2, max_drift=-101.0)
    assert len(report.failures(strict)) == 2


def test_embeddings_need_no_tokens(match_plan: Path, crops: Path) -> None:
    encoder = Encoder.from_plan(Plan(match_plan), threads=1)
    pictures = sorted(crops.iterdir())
    plain = encoder.encode_images(pictures)
    both = np.concatenate([b.embeddings for b in encoder.stream_images(pictures, tokens=True)])
    assert np.allclose(plain, both, atol=1e-6)


def test_metrics_of_re_ranking_equal_those_of_a_full_sort(
    method: FashionBert, recipe: Recipe, crops: Path
) -> None:
    encoder = eager_encoder(recipe, method, torch.device("cpu"))
    words = [f"{color} {thing}" for color in ("red", "blue") for thing in ("coat", "hat")]
    samples = [
        # Four captions in total, for the four identities.
        Sample(image=path, captions=(words[i],) if i < 4 else ("more",), pid=i % 4)
        for i, path in enumerate(sorted(crops.iterdir()))
    ]
    stage = score_candidates(encoder, samples, depth=5, max_captions=4)
    first_ranks = []
    for row in range(4):
        scores = stage.images.astype(np.float64) @ stage.texts[row].astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        assert stage.candidates[row].tolist() == order[:5].tolist()
        scores[order[:5]] += 0.3 * stage.probability[row]
        ranking = np.argsort(-scores, kind="stable")
        first_ranks.append(int(np.flatnonzero(ranking % 4 == row)[0]))
    got = stage.metrics(0.3)
    assert got.rank1 == pytest.approx(100 * np.mean(np.array(first_ranks) == 0))
    assert stage.metrics(0.3, depth=0) == stage.metrics(0.0)
    first_ranks = []
    for row in range(4):
        cosines = stage.images.astype(np.float64) @ stage.texts[row].astype(np.float64)
        first = sorted(zip(-stage.scores[row], stage.candidates[row], strict=True))
        rest = [p for p in np.argsort(-cosines, kind="stable") if p not in stage.candidates[row]]
        ranking = np.array([place for _, place in first] + rest)
        first_ranks.append(int(np.flatnonzero(ranking % 4 == row)[0]))
    alone = stage.match_metrics()
    assert alone.rank1 == pytest.approx(100 * np.mean(np.array(first_ranks) == 0))
    assert alone.rank5 == pytest.approx(100 * np.mean(np.array(first_ranks) < 5))
    assert stage.match_metrics(depth=0) == stage.metrics(0.0)
    best = stage.metrics(stage.best_weight()).mAP
    assert all(best >= stage.metrics(weight).mAP for weight in WEIGHTS)


def test_codes_are_close_to_the_tokens() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(3, 4, 64) * torch.tensor([0.0, 1e-3, 1.0, 50.0])[:, None]
    codes, scales = to_codes(tokens)
    assert codes.dtype == torch.int8
    error = (from_codes(codes, scales) - tokens).abs().amax(dim=-1)
    assert (error <= 0.5001 * scales).all()


def test_thumbnails_are_read_in_one_call(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[int]] = []
    read = Gallery.thumbnails

    def counted(self: Gallery, ids: Iterable[int]) -> dict[int, bytes]:
        calls.append(list(ids))
        return read(self, calls[-1])

    pictures = [np.full((128, 64, 3), shade, np.uint8) for shade in range(0, 250, 50)]
    with Searcher(plan, threads=1, rerank="match") as searcher:
        searcher.add(pictures, progress=False)
        monkeypatch.setattr(Gallery, "thumbnails", counted)
        assert searcher.prepare(progress=False).num_encoded == 5
    assert calls == [[1, 2, 3, 4, 5]]
