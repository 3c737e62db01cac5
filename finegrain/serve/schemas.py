"""What requests and answers hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finegrain.records import Scalar
from finegrain.search.matches import Matches
from finegrain.serve.cursors import MOST_OFFSET, Cursor

MOST_TEXT = 2048
MOST_QUERIES = 16
MOST_K = 1000
MOST_AVOIDED = 8
MOST_JUDGED = 100
MOST_VALUES = 50
MOST_IDS = 10_000

if TYPE_CHECKING:
    from finegrain.serve.reloading import Progress

Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]
Where = Annotated[str, Field(max_length=10_000)]
Id = Annotated[int, Field(ge=1, lt=2**63)]
Value = str | int | float | bool | None


MOST_PICTURES = 200
"""Pictures of a ZIP file."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # false is no number

    reason: str | None = Field(
        None, max_length=500, description="Why; stored in the audit log.", examples=["case 4711"]
    )


class Answering(_Body):
    """Options of every search."""

    k: int = Field(10, ge=1, le=MOST_K, description="Number of matches.")
    offset: int = Field(0, ge=0, le=MOST_OFFSET, description="Number of best matches to skip.")
    cursor: str | None = Field(
        None,
        max_length=100,
        description="Instead of offset: '' for the first page, then that of the answer before. "
        "Pictures that are added meanwhile are in no page.",
    )
    where: Where | None = Field(None, examples=["camera = 'gate-3' and price < 80"])
    group_by: str | None = Field(None, max_length=256, examples=["pid"])
    distinct: float | None = Field(None, ge=0, le=1)

    min_probability: float | None = Field(
        None, ge=0, le=1, description="Leave out matches that are less probable."
    )
    avoid: list[Text] = Field(
        [], max_length=MOST_AVOIDED, description="What must not be there.", examples=[["backpack"]]
    )
    negation: bool = Field(True, description='Also read "without ..." and "not wearing ...".')


Judged = Annotated[list[Id], Field(max_length=MOST_JUDGED)]


class Judging(Answering):
    """Options of a search by one query, with matches that were judged."""

    like: Judged = Field([], description="Pictures of the gallery that are right.")
    unlike: Judged = Field([], description="Pictures of the gallery that are wrong.")


class PictureOptions(Judging):
    """Options of a search by a picture, and words that change it."""

    text: Text | None = Field(None, examples=["but in a blue jacket"])
    weight: float | None = Field(None, ge=0, le=1, description="Weight of the words.")


class SearchBody(Judging):
    """A search by one text, or by several."""

    query: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_QUERIES)] = Field(
        examples=["woman in red coat"]
    )


class ExportBody(Answering):
    """A search by text whose answer is a file."""

    query: Text = Field(examples=["woman in red coat"])
    format: Literal["csv", "zip"] = Field(
        "csv", description="A table, or a table with pictures of up to 512 pixels."
    )


class SimilarBody(PictureOptions):
    """A search for pictures similar to one of the gallery."""

    id: Id


class ChosenBody(_Body):
    """Pictures by their ids or by a filter; one of the two."""

    ids: Annotated[list[Id], Field(max_length=MOST_IDS)] | None = None
    where: Where | None = None


class ChangeBody(ChosenBody):
    """Columns to set for some pictures."""

    set: dict[str, Value] = Field(min_length=1, examples=[{"reviewed": True}])


class ReferenceBody(_Body):
    """Files or folders of the server to add."""

    path: str = Field(min_length=1, max_length=4096, description="Below a folder of --root.")
    metadata: dict[str, Value] = Field(default_factory=dict)
    expire_after: float | None = Field(None, gt=0, description="Seconds.")


class AlertBody(_Body):
    """A standing query over the pictures that are added from now on."""

    name: str = Field(min_length=1, max_length=100, examples=["raincoat"])
    query: Text = Field(examples=["person in a yellow raincoat"])
    where: Where | None = Field(None, examples=["camera = 'gate-3'"])
    avoid: list[Text] = Field([], max_length=MOST_AVOIDED)
    per: str | None = Field(
        "track", max_length=256, description="Column with one alarm for each value."
    )
    false_alarms_per_day: float = Field(
        1.0, gt=0, le=1e6, description="Mean number of wrong pictures in a day that raise an alarm."
    )
    min_score: float | None = Field(None, description="Least score, instead of a rate.")
    pictures_per_day: float | None = Field(
        None, gt=0, le=1e9, description="Pictures in a day; by default they are counted."
    )
    webhook: str | None = Field(
        None,
        max_length=2048,
        description="Address that alarms are sent to; needs a key that may write.",
    )


class AlertOut(BaseModel):
    """A standing query, and what has happened with it."""

    name: str
    query: str
    where: str | None
    avoid: list[str]
    per: str | None
    false_alarms_per_day: float | None
    min_score: float | None = Field(description="The least score of an alarm, once it is computed.")
    pictures_per_day: float | None
    background: int | None = Field(description="Number of pictures whose scores decided.")
    webhook: str | None = Field(description="Host of the address that alarms are sent to.")
    made_at: str
    alarms: int = Field(description="Alarms that are kept.")
    waiting: int = Field(description="Alarms that the webhook has not accepted yet.")
    dropped: int = Field(description="Alarms that were dropped before the webhook accepted them.")
    fault: str | None = Field(description="Why it does not run, or why the webhook refused.")


class MadeAlertOut(AlertOut):
    """A new standing query, with the secret that signs its messages, which is shown once."""

    secret: str | None


class ReloadBody(_Body):
    """Options of a reload."""

    drop_unreadable: bool = Field(
        False, description="Delete pictures that can no longer be read; otherwise they end it."
    )


class ReloadOut(BaseModel):
    """How far a reload is."""

    stage: Literal["idle", "checking", "encoding", "switching", "done", "failed"]
    encoded: int = Field(description="Pictures that were encoded with the new plan.")
    pictures: int = Field(description="Pictures of the gallery.")
    fault: str | None = Field(description="Why it failed.")

    @classmethod
    def of(cls, progress: Progress) -> ReloadOut:
        return cls(**asdict(progress))


class MatchOut(BaseModel):
    """A picture that matches."""

    rank: int
    id: int
    score: float
    match: float | None = None
    probability: float | None = None
    pid: str | int | None
    camera: str | None
    time: str | None
    track: str | None
    metadata: dict[str, Scalar]


class AnswerOut(BaseModel):
    """The matches of one query."""

    query: str
    notes: list[str]
    matches: list[MatchOut]
    rejected: MatchOut | None = Field(
        None, description="The best match, if none was probable enough."
    )
    cursor: str | None = Field(None, description="Of the next page, if there may be one.")

    @classmethod
    def of(cls, matches: Matches, body: Answering) -> AnswerOut:
        """An answer, with the cursor of the next page if the request had one."""
        further = None
        if body.cursor and len(matches) == body.k:
            further = Cursor.read(body.cursor).after(body.k)
        return cls(
            cursor=None if further is None else further.text,
            query=matches.query,
            notes=list(matches.notes),
            matches=[MatchOut(**_fields(match.to_dict())) for match in matches],
            rejected=None
            if matches.rejected is None
            else MatchOut(**_fields(matches.rejected.to_dict())),
        )


class SearchOut(BaseModel):
    """Answers in the order of the queries."""

    answers: list[AnswerOut]


class PictureOut(BaseModel):
    """The columns of a picture."""

    id: int
    pid: str | int | None
    camera: str | None
    time: str | None
    track: str | None
    added_at: str
    expires_at: str | None
    metadata: dict[str, Scalar]


class AddedOut(BaseModel):
    """What an addition did."""

    ids: list[int]
    num_new: int
    num_known: int
    left_out: list[str]


class CountOut(BaseModel):
    """Number of pictures that were changed."""

    count: int


class ColumnOut(BaseModel):
    """A column, and some of the values that pictures have."""

    name: str
    kind: str
    values: list[Scalar]


class StatsOut(BaseModel):
    """The gallery and the model of the service."""

    pictures: int
    dim: int
    method: str
    fingerprint: str
    version: str
    columns: dict[str, str]
    alerts: bool = Field(description="Whether the service has alerts.")


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """Everything but the path, which is a place on the server."""
    return {name: value for name, value in values.items() if name != "image"}
