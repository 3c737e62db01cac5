from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from finegrain.exporters import ExportProfile, Fp32, Int8, ParityReport

PROFILE = ExportProfile(
    name="x",
    text=Int8(min_cosine=0.7),
    image=Fp32(min_cosine=0.6),
    min_overlap=0.5,
    min_rank1_agreement=0.4,
    max_drift=2,
)
VALID = ParityReport(
    num_queries=1,
    num_pictures=1,
    text_cosine=1,
    image_cosine=1,
    top10_overlap=1,
    rank1_agreement=1,
    eager_rank1=50,
    rank1=50,
    eager_mAP=40,
    mAP=40,
)
NAN = float("nan")
scores = st.floats(0, 1)


@given(text=scores, image=scores, overlap=scores, rank1=scores)
def test_a_report_fails_below_the_bound(text, image, overlap, rank1):
    report = replace(
        VALID,
        text_cosine=text,
        image_cosine=image,
        top10_overlap=overlap,
        rank1_agreement=rank1,
    )
    expected = [text < 0.7, image < 0.6, overlap < 0.5, rank1 < 0.4]
    assert len(report.failures(PROFILE)) == sum(expected)


@given(lost=st.floats(-10, 10), metric=st.sampled_from(["rank1", "mAP"]))
def test_a_metric_may_rise_but_not_fall(lost, metric):
    report = replace(VALID, **{metric: getattr(VALID, metric) - lost})
    # rank1 and mAP are subtracted from the eager metrics, which rounds.
    assert bool(report.failures(PROFILE)) == (report.drift > 2)
    assert abs(report.drift - max(lost, 0)) < 1e-9


def test_a_lower_metric_is_reported():
    (failure,) = replace(VALID, mAP=37.5).failures(PROFILE)
    assert failure == "rank1 or mAP falls by 2.50 points, more than 2"


def test_nan_fails():
    report = replace(
        VALID, text_cosine=NAN, image_cosine=NAN, top10_overlap=NAN, rank1_agreement=NAN, rank1=NAN
    )
    assert len(report.failures(PROFILE)) == 5
    assert len(replace(VALID, mAP=NAN).failures(PROFILE)) == 1


def test_a_printed_report_shows_the_drift():
    assert "drift" in str(VALID)
    assert str(replace(VALID, mAP=39)).splitlines()[-1].split()[-1] == "1.00"
