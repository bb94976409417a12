"""What goes into the JSON API: bodies, options, and how long and large any of it may be. Whatever is unknown or too much is refused."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from listener import reread
from store.ledger import DeliveryState
from store.study import StudyState, View

#: PS3.5 9.1. `\d` would take digits of other scripts.
UID_PATTERN = r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$"
#: A text without control characters: no database finds them, and PostgreSQL refuses to look for some.
ONE_LINE = r"^[^\x00-\x1f\x7f]*$"
#: What a person writes beside an act.
LONGEST_REASON = 1000
#: A request's id, made here or by the client.
REQUEST_ID_PATTERN = r"^[A-Za-z0-9._:-]{1,64}$"
#: What JSON's numbers hold without loss, and every database.
LARGEST_ID = 2**53 - 1
#: A list in a request has no more members.
MOST_MEMBERS = 1000
#: A client waits no longer in one request for a worker's answer, in seconds.
LONGEST_WAIT_SECONDS = 30.0
#: No listing is longer at once.
LONGEST_PAGE = 1000


def one_line(text: str) -> str:
    """`text` without what could steer a terminal or a log: control and format characters are spaces."""
    cleaned = "".join(" " if unicodedata.category(one).startswith("C") or one in "\u2028\u2029" else one for one in text)
    return re.sub(r" {2,}", " ", cleaned).strip()


Uid = Annotated[str, Field(pattern=UID_PATTERN, max_length=64, examples=["1.2.840.113619.2.55.3.1"])]
Why = Annotated[str, Field(max_length=LONGEST_REASON), AfterValidator(one_line)]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]


_Text = Annotated[str, Field(max_length=256, pattern=ONE_LINE)]
_Date = Annotated[str, Field(pattern=r"^([0-9]{8})?$", description="YYYYMMDD")]


class _Asked(BaseModel):
    """What a client writes: an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Reason(_Asked):
    """Why; it is kept beside what was done."""

    reason: Why = ""


class Reprocess(Reason):
    """Read a study again with the model and the options of now."""

    model: Annotated[str, Field(max_length=1000)] = Field(
        default="", description="Path of a model card that the configuration names; the default is that of rule or site"
    )


class Send(Reason):
    """Send the results of a study whatever the rules say."""

    send_to: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=100)] = Field(
        default=[], description="Names of [[pacs]], besides where the study's rule sends it"
    )


class Release(Reason):
    """How a held study goes on; without any choice: as it stands."""

    exclude: Annotated[list[Uid], Field(max_length=MOST_MEMBERS)] = Field(default=[], description="SOP Instance UIDs of images to drop")
    view: Annotated[dict[Uid, View], Field(max_length=MOST_MEMBERS)] = Field(
        default={}, description="SOP Instance UID of an image: the view that it shows"
    )
    accept_patient: bool = Field(default=False, description="The images are of one patient, as the newest names it")
    patient_of: Uid | Literal[""] = Field(default="", description="The images are of one patient, as this image names it")
    patient_from_pacs: bool = Field(default=False, description="The destination that names another patient for this study is right")
    use_file: Annotated[list[Id], Field(max_length=MOST_MEMBERS)] = Field(
        default=[], description="Of several files of one image take this one: numbers as `images[].file` has them"
    )


class Retry(Reason):
    """Deliveries to be sent again: those named (operator), or all in these states (admin); one of both."""

    delivery_ids: Annotated[list[Id], Field(max_length=MOST_MEMBERS)] = []
    states: Annotated[list[Literal["refused", "expired", "cancelled"]], Field(max_length=3)] = []
    destination: Annotated[str, Field(max_length=64, pattern=ONE_LINE)] = Field(
        default="", description="With states: only of this destination"
    )


class _Options(BaseModel):
    """What stands behind the question mark; an unknown name is a mistake."""

    model_config = ConfigDict(extra="forbid")


class StudiesWanted(_Options):
    state: list[StudyState] = Field(default=[], description="In one of these states; may be repeated")
    study_date_from: _Date = ""
    study_date_to: _Date = ""
    patient_id: _Text = Field(default="", description="Exactly this Patient ID; with * at its end what begins so")
    predicted_class: _Text = Field(default="", description="A view of the current version has this class")
    calling_ae_title: _Text = Field(default="", description="An image came from this AE title")
    device: _Text = Field(default="", description="An image names this station or model")
    after: Annotated[str, Field(max_length=100)] = Field(default="", description="`next` of the page before")
    limit: Annotated[int, Field(ge=1, le=LONGEST_PAGE)] = 50


class DeliveriesWanted(_Options):
    state: DeliveryState | None = Field(default=None, description="Only deliveries in this state")
    limit: Annotated[int, Field(ge=1, le=LONGEST_PAGE)] = LONGEST_PAGE


class ActsWanted(_Options):
    study: Annotated[str, Field(pattern=f"^$|{UID_PATTERN}", max_length=64)] = Field(
        default="", description="Only what was done to this study, forgotten or not"
    )
    since: Annotated[str, Field(max_length=20)] = Field(default="30d", description="How far to look back, as in 30d, 12h or 2w")
    limit: Annotated[int, Field(ge=1, le=LONGEST_PAGE)] = LONGEST_PAGE


class DevicesWanted(_Options):
    days: Annotated[float, Field(ge=0, le=reread.MOST_DAYS, allow_inf_nan=False)] = Field(default=30.0, description="How far to look back")


class AnswerWanted(_Options):
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS, allow_inf_nan=False)] = Field(
        default=0.0, description="Seconds to wait for the end of it; the answer is what is known then"
    )
