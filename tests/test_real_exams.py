"""The two real exams of the demonstration, as published and repaired: every view in its slot, or no view and the reason; never a guess.

The truth is not taken from the attributes that are tested: CBIS-DDSM names each film in its Patient ID ("..._LEFT_CC").
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from mammograms_made import uid
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation
from stepped_store import SteppedStore

from listener.demo_exams import EXAMS, REPAIRS, Repair, Source, repaired, sources
from listener.keeping import SOP_CLASSES
from pipeline.pixels import breast_edge
from store.study import HANGING_ORDER, ImageKind, View
from store.view import contradicted_by, resolve_view

SIDES = {"LEFT": "L", "RIGHT": "R"}
OPPOSITE = {"L": "R", "R": "L"}


@dataclass(frozen=True)
class Film:
    """One film: as published, repaired, its pixels, and what it shows."""

    published: Source
    repaired: Dataset
    pixels: np.ndarray[Any, Any]
    truth: View


def truth(ds: Dataset) -> View:
    side, position = str(ds.PatientID).split("_")[-2:]
    return View(f"{SIDES[side]}-{position}")


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return [Film(source, repaired(source), source.ds.pixel_array, truth(source.ds)) for source in sources()]


# -------------------------------------------------------------------------------------------------------------------- repaired


def test_eight_repaired_films_fill_the_slots_that_they_show(films: Sequence[Film]) -> None:
    for film in films:
        evidence = resolve_view(film.repaired)
        assert evidence.view is film.truth, film.published.ds.PatientID
        assert (evidence.kind, evidence.conflicts, evidence.warnings, evidence.set_aside, evidence.doubt) == (
            ImageKind.FFDM,
            (),
            (),
            "",
            "",
        )
    for exam, *_ in EXAMS:
        assert sorted(film.truth for film in films if film.published.exam == exam) == sorted(HANGING_ORDER)


def test_the_pixels_agree_with_every_side(films: Sequence[Film]) -> None:
    for film in films:
        edge = breast_edge(film.pixels, film.repaired)
        assert edge == {"L": "left", "R": "right"}[film.truth.laterality], film.published.ds.PatientID
        assert contradicted_by(resolve_view(film.repaired), edge) == ()


def test_the_pixels_and_the_orientation_contradict_every_wrong_side(films: Sequence[Film]) -> None:
    for film in films:
        ds = Dataset()
        ds.update({element.tag: deepcopy(element) for element in film.repaired if element.keyword != "PixelData"})
        ds.ImageLaterality = OPPOSITE[film.truth.laterality]
        evidence = resolve_view(ds)
        assert evidence.laterality == ds.ImageLaterality
        assert contradicted_by(evidence, breast_edge(film.pixels, ds)) == ("PatientOrientation", "pixels")


@pytest.mark.parametrize("left_out", REPAIRS, ids=lambda repair: repair.keywords[0])
def test_one_repair_left_out_gives_the_right_view_or_none(films: Sequence[Film], left_out: Repair) -> None:
    for film in films:
        ds = Dataset()
        ds.update({element.tag: deepcopy(element) for element in film.repaired if element.keyword != "PixelData"})
        for keyword in left_out.keywords:
            del ds[keyword]
            if keyword in film.published.ds:
                ds.add(deepcopy(film.published.ds[keyword]))
        evidence = resolve_view(ds)
        assert evidence.view in (film.truth, None)
        assert (evidence.view is None) == bool(evidence.set_aside or evidence.doubt)


# ----------------------------------------------------------------------------------------------------------------- as published


def test_films_as_published_fill_no_slot_and_say_why(films: Sequence[Film]) -> None:
    for film in films:
        evidence = resolve_view(film.published.ds)
        assert evidence.view is None
        assert evidence.set_aside or evidence.doubt
        assert evidence.laterality in (None, film.truth.laterality)
        assert evidence.view_position in (None, film.truth.position)


def test_films_that_only_changed_their_class_fill_no_wrong_slot(films: Sequence[Film]) -> None:
    """A gateway that turns Secondary Captures into mammograms does not move View Position to where it belongs."""
    for film in films:
        evidence = resolve_view(only_another_class(film))
        assert evidence.view in (film.truth, None)
        assert (evidence.view is None) == bool(evidence.set_aside or evidence.doubt)
        assert evidence.laterality in (None, film.truth.laterality)


def only_another_class(film: Film, **attributes: str) -> Dataset:
    ds = Dataset()
    ds.update({element.tag: deepcopy(element) for element in film.published.ds if not element.tag.is_private})
    ds["PixelData"].VR = "OB"
    ds.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    ds.PresentationIntentType = "FOR PRESENTATION"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.file_meta = deepcopy(film.published.ds.file_meta)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return ds


# ---------------------------------------------------------------------------------------------------------- through the store

REASONS = {sop_class.uid: sop_class.reason for sop_class in SOP_CLASSES}


def stops(stepped: SteppedStore, study_instance_uid: str) -> str:
    """The state in which the study stopped, after it is asserted that the state and each of its images have a reason in words."""
    study = stepped.search.study(study_instance_uid)
    assert " " in study["state_reason"], study
    assert [one for one in study["images"] if " " not in one["disposition_reason"]] == []
    assert (study["runs"], study["deliveries"], stepped.scored) == ([], [], [])
    return str(study["state"])


def test_exams_as_published_are_ignored_in_words(stepped: SteppedStore, films: Sequence[Film]) -> None:
    for film in films:
        stepped.receive(film.published.ds, ignored=REASONS[film.published.ds.SOPClassUID])
    stepped.settle()
    for film in films:
        assert stops(stepped, film.published.ds.StudyInstanceUID) == "ignored"


def test_exams_as_published_that_are_kept_all_the_same_are_not_analysed(stepped: SteppedStore, films: Sequence[Film]) -> None:
    """As if a class were kept that the resolver does not know as mammography: the second of two doors is shut as well."""
    stepped.receive(*(film.published.ds for film in films[:4]))
    stepped.settle()
    for film in films[:4]:
        assert stops(stepped, film.published.ds.StudyInstanceUID) in ("ignored", "held")


@pytest.mark.parametrize("patient", [{}, {"PatientID": "P1", "PatientName": "Doe^Jane"}], ids=["four patients", "one patient"])
def test_an_exam_that_only_changed_its_class_and_study_is_not_analysed(
    stepped: SteppedStore, films: Sequence[Film], patient: dict[str, str]
) -> None:
    stepped.receive(*(only_another_class(film, StudyInstanceUID=uid("exam"), **patient) for film in films[:4]))
    stepped.settle()
    assert stops(stepped, uid("exam")) in ("ignored", "held")


def test_repaired_exams_are_analysed_and_every_film_stands_in_its_slot(stepped: SteppedStore, films: Sequence[Film]) -> None:
    """The control: what keeps the others out is their headers, not the films."""
    for exam, *_ in EXAMS:
        mine = [film for film in films if film.published.exam == exam]
        stepped.receive(*(film.repaired for film in mine))
        stepped.settle()
        study = stepped.search.study(mine[0].repaired.StudyInstanceUID)
        assert study["state"] == "analysed"
        [version] = study["runs"]
        chosen = {view: slot["sop_instance_uid"] for view, slot in version["selection"].items()}
        assert chosen == {film.truth.value: str(film.repaired.SOPInstanceUID) for film in mine}
