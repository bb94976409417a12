"""Questions on the read-only engine: a study and what happened to it, and the result objects that QIDO-RS searches (PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa

from store import queue, tables
from store.database import database_now
from store.images import Disposition
from store.keys import conditions, like
from store.leases import living_processes
from store.ledger import GIVEN_UP
from store.look import current_selection, decided, evidence_from, scores_from
from store.pauses import listed
from store.rows import unknown_study
from store.study import HANGING_ORDER, OPERATOR, Candidate, ImageKind, Scores, View, ViewEvidence, elect
from store.view import contradicted_by


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """A result object as it is remembered; `header` is the DICOM JSON model without group 0002 and pixel data, parsed when it is read."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    header: Mapping[str, Any]
    file_name: str


class UnknownRequest(Exception):
    """No request with this id is known; the message says so."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The files that show an image as one model read it: `preview_file` all of it, `heat_map_file` the rectangle `scores.box`."""

    preview_file: str
    heat_map_file: str | None
    scores: Scores


class _Header(Mapping[str, Any]):
    """A header as the database has it: a search reads those of few of the objects that it finds, and a report's is long."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self._text)
        return parsed

    def __getitem__(self, tag: str) -> Any:
        return self._parsed[tag]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed)

    def __len__(self) -> int:
        return len(self._parsed)


class Hit(NamedTuple):
    """A result object that a search found; `Search.objects` has its header."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


class Search:
    """Read-only questions about everything that is remembered."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    # ------------------------------------------------------------------------------------------------------------- studies

    def study(self, study_instance_uid: str) -> dict[str, Any]:
        """Everything about one study: state, images, scores, versions with their objects, deliveries, timeline. Raises UnknownStudy."""
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(tables.study).where(tables.study.c.study_instance_uid == study_instance_uid)).first()
            if row is None:
                raise unknown_study(connection, study_instance_uid)

            def rows(table: sa.Table, order: sa.Column[Any]) -> Sequence[sa.Row[Any]]:
                mine = table.c.study_instance_uid == study_instance_uid
                return connection.execute(sa.select(table).where(mine).order_by(order)).all()

            sent = _deliveries().where(tables.delivery.c.study_instance_uid == study_instance_uid)
            scores: dict[int, list[dict[str, Any]]] = {}
            for score in rows(tables.score, tables.score.c.id):
                scores.setdefault(score.instance_id, []).append(_score(score))
            objects: dict[int, list[dict[str, Any]]] = {}
            for one in rows(tables.result_object, tables.result_object.c.kind):
                names = ("kind", "sop_instance_uid", "series_instance_uid", "file_name", "sha256", "size_bytes")
                objects.setdefault(one.version_id, []).append(_picked(one, names))
            runs = {one.id: one for one in rows(tables.run, tables.run.c.created_at)}
            versions = rows(tables.version, tables.version.c.number)
            received = rows(tables.instance, tables.instance.c.id)
            requests = rows(tables.decision, tables.decision.c.id)
            assigned = decided(one.effect for one in requests).assigned
            evidence = {one.id: _effective(one, assigned) for one in received if one.evidence}
            images = [_image(one, evidence.get(one.id), scores.get(one.id, [])) for one in received]
            return {
                **_picked(row, ("study_instance_uid", "state", "state_reason", "revision", "study_date", "due_at")),
                "patient": _picked(row, ("patient_id", "patient_name", "patient_birth_date")),
                "doubts": row.doubts or [],
                **_picked(row, ("first_instance_at", "last_instance_at")),
                "rule": {
                    **{name: row._mapping[f"rule_{name}"] for name in ("name", "action", "reason")},
                    "values": row.rule_values or {},
                    "send_to": row.rule_send_to or [],
                    "slots": row.rule_slots or [str(view) for view in HANGING_ORDER],
                    "forward_to": row.rule_forward_to or [],
                },
                "pace": {"standing": row.pace, "calling_ae_title": row.paced_by},
                "queue": queue.places(connection, [study_instance_uid]).get(study_instance_uid),
                "same_patient": _same_patient(connection, row),
                "same_images": _same_images(connection, row, [one.sop_instance_uid for one in received]),
                "slots": _slots(received, evidence, runs[versions[-1].run_id].selection if versions else {}),
                "images": images,
                "runs": [
                    {
                        **_picked(one, ("number", "run_id", "outcome", "losers", "warnings", "trained", "created_at")),
                        "model": runs[one.run_id].model,
                        "model_key": runs[one.run_id].model_key,
                        "selection": runs[one.run_id].selection,
                        "objects": objects.get(one.id, []),
                    }
                    for one in versions
                ],
                "deliveries": [_picked(one, ("id", *_DELIVERY)) for one in connection.execute(sent.order_by(tables.delivery.c.id)).all()],
                "decisions": [_picked(one, _DECISION) for one in requests],
                "timeline": [_picked(one, ("at", "text")) for one in rows(tables.timeline, tables.timeline.c.id)],
                "paused": listed(connection),
            }

    def asked(self, request_id: str) -> dict[str, Any]:
        """A person's request, what a worker answered to it, and how its study stands now. Raises UnknownRequest.

        `applied_at` is None while no worker has looked at it; `sent_to`: where the current version is, or is on its way; `given_up`: where
        something of it was refused, expired or cancelled.
        """
        row, study, version = tables.decision, tables.study, tables.version
        delivery, made = tables.delivery, tables.result_object
        number = sa.select(sa.func.max(version.c.number)).where(version.c.study_instance_uid == row.c.study_instance_uid)
        with self._engine.begin() as connection:
            query = sa.select(row, study.c.state, study.c.state_reason, study.c.doubts, number.scalar_subquery().label("version")).join(
                study, study.c.study_instance_uid == row.c.study_instance_uid
            )
            found = connection.execute(query.where(row.c.request_id == request_id)).first()
            if found is None:
                raise UnknownRequest(f"no request {request_id} is known here; one goes when its study is forgotten")
            current = sa.and_(version.c.study_instance_uid == found.study_instance_uid, version.c.number == found.version)
            objects = sa.select(made.c.sop_instance_uid).join(version, version.c.id == made.c.version_id).where(current)
            where = sa.select(delivery.c.destination, delivery.c.state).distinct().where(delivery.c.sop_instance_uid.in_(objects))
            sent = connection.execute(where.order_by(delivery.c.destination)).all()
            return {
                **_picked(found, ("request_id", "study_instance_uid", *_DECISION)),
                "study_state": found.state,
                "study_state_reason": found.state_reason,
                "version": found.version,
                "doubts": found.doubts or [],
                "sent_to": list(dict.fromkeys(one.destination for one in sent if one.state not in GIVEN_UP)),
                "given_up": list(dict.fromkeys(one.destination for one in sent if one.state in GIVEN_UP)),
            }

    def devices(self, days: float) -> list[dict[str, Any]]:
        """One line per device: its images of the last `days`, and how often what it says of the side is contradicted; the most first."""
        row = tables.instance
        names = ("manufacturer", "manufacturer_model_name", "station_name", "device_serial_number")
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        with self._engine.begin() as connection:
            query = (
                sa.select(*(row.c[name] for name in names), row.c.evidence, row.c.breast_edge, row.c.disposition)
                .where(
                    row.c.resolved_at > database_now(connection) - timedelta(days=days), row.c.evidence.is_not(None), row.c.modality != "KO"
                )
                .where(row.c.disposition != Disposition.ON_DEMAND)
            )
            for one in connection.execute(query):
                key = tuple(one._mapping[name] for name in names)
                device = found.setdefault(key, {**dict(zip(names, key, strict=True)), **dict.fromkeys(_COUNTS, 0)})
                for count in _counted(one):
                    device[count] += 1
        contradicted = ("orientation_contradicts", "pixels_contradict", "doubts")
        return sorted(found.values(), key=lambda device: ([-device[count] for count in contradicted], [device[name] for name in names]))

    def analysed_since(self, days: float) -> list[str]:
        """The studies whose current version was made in the last `days`, newest first."""
        version = tables.version
        with self._engine.begin() as connection:
            newest = sa.func.max(version.c.created_at)
            query = sa.select(version.c.study_instance_uid).group_by(version.c.study_instance_uid)
            since = database_now(connection) - timedelta(days=days)
            return list(connection.execute(query.having(newest > since).order_by(newest.desc())).scalars())

    def compared(self, study_instance_uid: str, model_key: str) -> list[dict[str, Any]]:
        """Per view of a study's current version: its class and score, and what the model of `model_key` says of the same image.

        `state` is that of the other model's reading: waiting | scored | failed, "" when it was not asked for.
        """
        score = tables.score
        with self._engine.begin() as connection:
            selection = current_selection(connection, study_instance_uid)
            others = sa.select(score).where(score.c.study_instance_uid == study_instance_uid, score.c.model_key == model_key)
            by_image = {row.instance_id: row for row in connection.execute(others).all()}
        found = []
        for view in HANGING_ORDER:
            if (one := selection.get(view)) is None:
                continue
            other = by_image.get(one["instance_id"])
            before = scores_from(one["scores"]) if one["scores"] else None
            after = scores_from(other.scores) if other is not None and other.scores else None
            found.append(
                {
                    "view": str(view),
                    "sop_instance_uid": one["sop_instance_uid"],
                    "before": before.predicted_class if before else None,
                    "before_probability": before.probability if before else None,
                    "after": after.predicted_class if after else None,
                    "after_probability": after.probability if after else None,
                    "state": other.state if other is not None else "",
                    "error": other.error if other is not None else "",
                }
            )
        return found

    def deliveries(self, state: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        """One line per delivery, newest first."""
        row = tables.delivery
        query = _deliveries().order_by(row.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(row.c.state == state)
        with self._engine.begin() as connection:
            return [_picked(one, ("id", "study_instance_uid", *_DELIVERY)) for one in connection.execute(query).all()]

    def given_up(self) -> list[dict[str, Any]]:
        """Deliveries that a person must look at, once for each destination, state and reason: how many, since when, one of their ids."""
        row = tables.delivery
        query = (
            sa.select(
                row.c.destination,
                row.c.state,
                row.c.reason,
                sa.func.count().label("count"),
                sa.func.min(row.c.created_at).label("since"),
                sa.func.max(row.c.id).label("newest_id"),
            )
            .where(row.c.state.in_(("refused", "expired")))
            .group_by(row.c.destination, row.c.state, row.c.reason)
            .order_by(row.c.destination, row.c.state, row.c.reason)
        )
        with self._engine.begin() as connection:
            return [dict(found._mapping) for found in connection.execute(query).all()]

    def living(self, role: str) -> list[str]:
        """The processes of a role that renewed their lease lately."""
        with self._engine.begin() as connection:
            return living_processes(connection, role, database_now(connection))

    # ------------------------------------------------------------------------------------------------------ result objects

    def search(
        self,
        level: str,
        *,
        study_instance_uid: str | None,
        series_instance_uid: str | None,
        matching: Mapping[str, str],
        limit: int,
        offset: int,
        common: bool = False,
    ) -> list[Hit]:
        """One object for each study, series or instance (`level`) of which an object meets every key, newest study date first.

        `common`: thousands do. Then what wildcards match is looked for among the newest first, instead of finding and sorting them all.
        """
        row = tables.result_object
        common = common and any(mark in value for value in matching.values() for mark in "*?")
        with self._engine.begin() as connection:
            if common:
                query = self._found(level, conditions(study_instance_uid, series_instance_uid, matching, like))
                nth = sa.select(row.c.study_date).order_by(row.c.study_date.desc()).offset(_NEWEST).limit(1)
                newest = query.where(row.c.study_date >= sa.func.coalesce(nth.scalar_subquery(), ""))
                hits = connection.execute(newest.limit(limit).offset(offset)).all()
                if len(hits) == limit:
                    return [Hit(*one) for one in hits]
            query = self._found(level, conditions(study_instance_uid, series_instance_uid, matching))
            return [Hit(*one) for one in connection.execute(query.limit(limit).offset(offset)).all()]

    @staticmethod
    def _found(level: str, met_by: Callable[[sa.FromClause], list[sa.ColumnElement[bool]]]) -> sa.Select[Any]:
        """The hits in the order of answers; `met_by` says what one object must meet."""
        row, other = tables.result_object, tables.result_object.alias()
        met = met_by(row)
        if level != "instance":
            # The newest speaks for the rest. No window over all that meet the keys: a page is to cost no more the more there is behind it.
            newer = sa.or_(
                other.c.version_id > row.c.version_id,
                sa.and_(other.c.version_id == row.c.version_id, other.c.sop_instance_uid < row.c.sop_instance_uid),
            )
            same = [other.c[name] == row.c[name] for name in _LEVELS[level]]
            met.append(~sa.exists().where(*same, newer, *met_by(other)))
        return (
            sa.select(row.c.study_instance_uid, row.c.series_instance_uid, row.c.sop_instance_uid)
            .where(*met)
            .order_by(row.c.study_date.desc(), row.c.study_instance_uid, row.c.series_instance_uid, row.c.sop_instance_uid)
        )

    def count(
        self, level: str, *, study_instance_uid: str | None, series_instance_uid: str | None, matching: Mapping[str, str], at_most: int
    ) -> int:
        """How many `search` would find without a limit; counting ends at `at_most`."""
        row = tables.result_object
        met = conditions(study_instance_uid, series_instance_uid, matching)(row)
        found = sa.select(*(row.c[name] for name in _LEVELS[level])).where(*met).distinct().limit(at_most).subquery()
        with self._engine.begin() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(found)).scalar_one()

    def objects(self, study_instance_uids: Sequence[str]) -> list[StoredObject]:
        """Every result object of these studies, in the order in which they were made."""
        row = tables.result_object
        query = (
            sa.select(*(row.c[name] for name in _STORED), sa.cast(row.c.header, sa.Text).label("header"))
            .where(row.c.study_instance_uid.in_(study_instance_uids))
            .order_by(row.c.version_id, row.c.kind.desc())
        )
        with self._engine.begin() as connection:
            return [_stored(one._mapping) for one in connection.execute(query).all()]

    def preview(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> str | None:
        """The file that shows an image as it was read, of its newest reception; None when it was not read. It outlives the pixels."""
        row, score = tables.instance, tables.score
        query = (
            sa.select(score.c.preview_file)
            .join(row, row.c.id == score.c.instance_id)
            .where(
                row.c.sop_instance_uid == sop_instance_uid,
                row.c.study_instance_uid == study_instance_uid,
                row.c.series_instance_uid == series_instance_uid,
                score.c.preview_file.is_not(None),
            )
            .order_by(row.c.id.desc(), score.c.id.desc())
            .limit(1)
        )
        with self._engine.begin() as connection:
            return connection.execute(query).scalar()

    def pictures(self, study_instance_uid: str, score_id: int) -> Pictures | None:
        """The pictures of one score of a study; None when there is no such score, or no picture of it any more."""
        row = tables.score
        mine = sa.and_(row.c.id == score_id, row.c.study_instance_uid == study_instance_uid, row.c.preview_file.is_not(None))
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(row.c.preview_file, row.c.heat_map_file, row.c.scores).where(mine)).first()
        if found is None:
            return None
        return Pictures(preview_file=found.preview_file, heat_map_file=found.heat_map_file, scores=scores_from(found.scores))


_COUNTS = ("images", "views", "side_from_text", "orientation_contradicts", "pixels_contradict", "doubts")
_DECISION = ("kind", "person", "why", "parameters", "created_at", "applied_at", "answer")
_DELIVERY = (
    "destination",
    "kind",
    "sop_instance_uid",
    "state",
    "tries",
    "status",
    "reason",
    "due_at",
    "sent_at",
    "confirmed_at",
    "checked_at",
    "patient_check",
)


def _deliveries() -> sa.Select[Any]:
    """Deliveries with their kind: sr, page, or original for an image as it was received."""
    row, result = tables.delivery, tables.result_object
    kind = sa.func.coalesce(result.c.kind, "original").label("kind")
    return sa.select(row, kind).outerjoin(result, result.c.sop_instance_uid == row.c.sop_instance_uid)


_STORED = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "modality", "file_name")
_LEVELS = {
    "study": ("study_instance_uid",),
    "series": ("study_instance_uid", "series_instance_uid"),
    "instance": ("sop_instance_uid",),
}

#: Where what is common is looked for before all of it is sorted: so many objects, those of the last study dates.
_NEWEST = 20_000


def _counted(row: Any) -> list[str]:
    """Which counts of its device an image adds to."""
    evidence = evidence_from(row.evidence)
    against = contradicted_by(evidence, row.breast_edge)
    told = {
        "images": True,
        "views": evidence.view is not None,
        "side_from_text": evidence.view is not None and evidence.laterality_source.startswith("text"),
        "orientation_contradicts": "PatientOrientation" in against,
        "pixels_contradict": "pixels" in against,
        "doubts": row.disposition == Disposition.DOUBT,
    }
    return [name for name, counts in told.items() if counts]


def _same_patient(connection: sa.Connection, row: sa.Row[Any]) -> list[str]:
    """Other studies of the same patient and day: one exam may have come under several UIDs. They are not merged."""
    study = tables.study
    if not row.patient_id or not row.study_date:
        return []
    query = sa.select(study.c.study_instance_uid).where(
        study.c.patient_id == row.patient_id,
        study.c.issuer_of_patient_id == row.issuer_of_patient_id,
        study.c.study_date == row.study_date,
        study.c.study_instance_uid != row.study_instance_uid,
    )
    return list(connection.execute(query.order_by(study.c.study_instance_uid)).scalars())


def _same_images(connection: sa.Connection, row: sa.Row[Any], sop_instance_uids: Sequence[str]) -> list[dict[str, str]]:
    """Images of this study that came in another study too, as after a correction of the worklist entry."""
    instance = tables.instance
    query = sa.select(instance.c.sop_instance_uid, instance.c.study_instance_uid).where(
        instance.c.sop_instance_uid.in_(sorted(set(sop_instance_uids))), instance.c.study_instance_uid != row.study_instance_uid
    )
    return [dict(one._mapping) for one in connection.execute(query.distinct().order_by(*query.selected_columns)).all()]


def _picked(row: sa.Row[Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row._mapping[name] for name in names}


def _stored(row: sa.RowMapping) -> StoredObject:
    return StoredObject(**{name: row[name] for name in _STORED}, header=_Header(row["header"]))


def _score(row: sa.Row[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": row.id,
        "model": f"{row.model['name']} {row.model['version']}",
        "model_key": row.model_key,
        "engine": row.model["engine"],
        "trained": row.model["trained"],
        "background": row.background,  # only compared: no version is made of it
        "state": row.state,
        "error": row.error,
        "attempt": row.attempt,
        "duration_seconds": row.duration_seconds,
    }
    if row.scores is not None:
        scores = scores_from(row.scores)
        found |= {
            "predicted_class": scores.predicted_class,
            "probability": scores.probability,
            "all_probabilities": dict(zip(scores.classes, scores.probabilities, strict=True)),
            "box": list(scores.box),
            "warnings": list(scores.warnings),
            "preview": row.preview_file is not None,
            "heat_map": row.heat_map_file is not None,
        }
    return found


def _slots(
    received: Sequence[sa.Row[Any]], evidence: Mapping[int, ViewEvidence], selection: Mapping[str, Any]
) -> dict[str, dict[str, Any] | None]:
    """Per view: the image that the current version read; the candidates that are here, the elected one first; who was passed over, and
    why. None for an empty slot."""
    here = [
        Candidate(instance_id=one.id, sop_instance_uid=one.sop_instance_uid, evidence=evidence[one.id], **one.ranking)
        for one in received
        if one.disposition in (Disposition.CANDIDATE, Disposition.FAILED)
    ]
    election = elect(here, frozenset(ImageKind))  # what the model does not read is no candidate any more
    slots: dict[str, dict[str, Any] | None] = {}
    for view in HANGING_ORDER:
        winner, chosen = election.winner(view), selection.get(view)
        losers = [loser for loser in election.losers if loser.view is view]
        slots[view] = {
            "sop_instance_uid": chosen["sop_instance_uid"] if chosen else None,
            "candidates": ([winner.sop_instance_uid] if winner else []) + [loser.sop_instance_uid for loser in losers],
            "losers": [{"sop_instance_uid": one.sop_instance_uid, "rule": one.rule, "reason": one.reason} for one in losers],
        }
        if winner is None and chosen is None:
            slots[view] = None
    return slots


def _effective(row: sa.Row[Any], assigned: Mapping[str, View]) -> ViewEvidence:
    """What an image shows, as far as a person did not say otherwise."""
    evidence = evidence_from(row.evidence)
    view = assigned.get(row.sop_instance_uid)
    if view is None:
        return evidence
    return replace(
        evidence,
        view=view,
        laterality=view.laterality,
        laterality_source=OPERATOR,
        view_position=view.position,
        view_source=OPERATOR,
        set_aside="",
        doubt="",
    )


def _image(row: sa.Row[Any], effective: ViewEvidence | None, scores: list[dict[str, Any]]) -> dict[str, Any]:
    evidence = asdict(effective) if effective is not None else {}
    names = ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "modality", "calling_ae_title", "size_bytes", "received_at")
    return {
        **_picked(row, names),
        "disposition": row.disposition,
        "disposition_reason": row.disposition_reason,
        "kept": row.file_name is not None,
        "file": row.id,
        "patient_id": row.patient_id,
        "breast_edge": row.breast_edge,
        "view": evidence.get("view"),
        "view_source": evidence.get("view_source", ""),
        "laterality_source": evidence.get("laterality_source", ""),
        "kind": evidence.get("kind", ""),
        "modifiers": list(evidence.get("modifiers", [])),
        "warnings": [*evidence.get("warnings", []), *evidence.get("conflicts", [])],
        "orientation": list(evidence.get("orientation", [])),
        "scores": scores,
    }
