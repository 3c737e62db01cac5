"""Descriptions of the person-search datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from finegrain.records import Problem, Split

SPLITS = ("train", "val", "test")
WHOLE = "all"
"""Key of :attr:`PersonDataset.published` for counts over all splits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Size of a split."""

    identities: int
    pictures: int
    captions: int

    @classmethod
    def of(cls, splits: Iterable[Split]) -> Counts:
        """Total size of several splits."""
        samples = [sample for split in splits for sample in split.samples]
        return cls(
            identities=len({sample.pid for sample in samples}),
            pictures=len(samples),
            captions=sum(len(sample.captions) for sample in samples),
        )

    def against(self, published: Counts) -> str:
        """Differences from the published size, or an empty text."""
        pairs = [(f.name, getattr(self, f.name), getattr(published, f.name)) for f in fields(self)]
        return ", ".join(
            f"{size} {name} where {wanted} are published"
            for name, size, wanted in pairs
            if size != wanted
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonDataset:
    """The description of a dataset whose annotations are a JSON list of pictures.

    Attributes:
        name: Name on the command line.
        title: Name in its paper.
        annotations: Patterns for the name of the annotation file, in the order in which they are
            tried, because copies differ.
        image_roots: Folders that picture paths are relative to, in the order in which they are
            tried.
        folders: Folders in the first image root of a complete copy. Empty if it directly contains
            the pictures.
        camera: Pattern of a picture's path whose group is the camera. None if paths do not name
            a camera.
        published: Split, or ``all``, to its published size.
        in_order: Whether records are in the order train, val, test, so that a copy without a
            field ``split`` can be split by the published numbers of pictures.
        pictures_from: Datasets that the pictures were taken from.
        access: How to get the dataset.
    """

    name: str
    title: str
    annotations: tuple[str, ...]
    image_roots: tuple[str, ...]
    folders: tuple[str, ...]
    camera: str | None = None
    published: Mapping[str, Counts]
    in_order: bool = False
    pictures_from: tuple[str, ...] = ()
    access: str

    def published_split(self, index: int) -> str | None:
        """The split of record ``index`` (from 0) by its position, or None if that is unknown."""
        if not self.in_order:
            return None
        end = 0
        for name in SPLITS:
            end += self.published[name].pictures
            if index < end:
                break
        return name

    def differences(self, splits: Mapping[str, Split]) -> tuple[Problem, ...]:
        """Splits whose size is not the published one, so that results are not comparable."""
        sizes = {name: Counts.of([split]) for name, split in splits.items()}
        sizes[WHOLE] = Counts.of(splits.values())
        return tuple(
            Problem(where=f"{self.title} {name}", why=f"has {difference}")
            for name, published in self.published.items()
            if (difference := sizes.get(name, Counts.of([])).against(published))
        )


# Li et al., "Person Search with Natural Language Description", CVPR 2017.
CUHK_PEDES = PersonDataset(
    name="cuhk_pedes",
    title="CUHK-PEDES",
    annotations=("reid_raw.json", "caption_all.json"),
    image_roots=("imgs", "."),
    folders=("cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query"),
    camera=r"(?:imgs/)?([^/]+)/",
    published={
        "train": Counts(identities=11003, pictures=34054, captions=68126),
        "val": Counts(identities=1000, pictures=3078, captions=6158),
        "test": Counts(identities=1000, pictures=3074, captions=6156),
    },
    pictures_from=("CUHK01", "CUHK03", "Market-1501"),
    access="Ask its authors by e-mail from a university's address; "
    "https://github.com/ShuangLI59/Person-Search-with-Natural-Language-Description names whom, "
    "and links reid_raw.json. Many requests stay unanswered, and newer archives lack "
    "train_query, test_query, Market and CUHK01: ask for the whole one.",
)

# Ding et al., "Semantically Self-Aligned Network for Text-to-Image Part-aware Person
# Re-identification", 2021. Its imgs/train and imgs/test are MSMT17's, not its own splits.
ICFG_PEDES = PersonDataset(
    name="icfg_pedes",
    title="ICFG-PEDES",
    annotations=("ICFG-PEDES.json", "ICFG_PEDES.json"),
    image_roots=("imgs", "."),
    folders=("train", "test"),
    camera=r"(?:.*/)?\d+_\d+_(\d+)_[^/]*",
    published={
        "train": Counts(identities=3102, pictures=34674, captions=34674),
        "test": Counts(identities=1000, pictures=19848, captions=19848),
    },
    pictures_from=("MSMT17",),
    access="Ask its authors by e-mail; https://github.com/zifyloo/SSAN names whom.",
)

# Zhu et al., "DSSL: Deep Surroundings-person Separation Learning for Text-based Person
# Retrieval", ACM Multimedia 2021.
RSTPREID = PersonDataset(
    name="rstpreid",
    title="RSTPReid",
    annotations=("data_captions.json",),
    image_roots=("imgs", "."),
    folders=(),
    camera=r"(?:.*/)?\d+_(c\d+)_[^/]*",
    published={
        "train": Counts(identities=3701, pictures=18505, captions=37010),
        "val": Counts(identities=200, pictures=1000, captions=2000),
        "test": Counts(identities=200, pictures=1000, captions=2000),
    },
    in_order=True,
    pictures_from=("MSMT17",),
    access="https://github.com/NjtechCVLab/RSTPReid-Dataset links two downloads.",
)

# Zuo et al., "UFineBench: Towards Text-based Person Retrieval with Ultra-fine Granularity",
# CVPR 2024. Sizes of its splits are not published beside the data.
UFINE6926 = PersonDataset(
    name="ufine6926",
    title="UFine6926",
    annotations=("UFine6926_Annotations_1024.json", "*[Uu][Ff]ine6926*.json"),
    image_roots=(".",),
    folders=("images",),
    published={WHOLE: Counts(identities=6926, pictures=26206, captions=52412)},
    access="Sign the licence in https://github.com/Zplusdragon/UFineBench and send it to its "
    "authors.",
)

PERSON_DATASETS = (CUHK_PEDES, ICFG_PEDES, RSTPREID, UFINE6926)
