"""A study fetched from a PACS comes in by the same door as one that was sent: the same checks, the same keeping (PS3.18 10.4)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from listener.config import Config
from listener.keeping import check_size, ignored_because, keep_file, kept_for
from listener.keys import Keys, Refused, Status, check_uids, read_keys, read_meta
from listener.parts import image_kinds
from listener.streamed import without_preamble
from pipeline.decode import DECODABLE
from pipeline.orthanc import FetchFailed, fetch_study
from pipeline.send import Pacs
from store.archive import Archive, Kept
from store.files import Files


def source(config: Config) -> Pacs:
    """The PACS that images are fetched from. Raises FetchFailed."""
    pacs = next((one for one in config.pacs if one.name == config.study.fetch_from), None)
    if pacs is None:
        raise FetchFailed("there is nowhere to fetch from: name a [[pacs]] with a url in [study] fetch_from", worth_retrying=False)
    return pacs


def fetch_and_keep(config: Config, archive: Archive, files: Files, study_instance_uid: str, only: Mapping[str, str] | None = None) -> str:
    """Fetch a study's mammograms from `[study] fetch_from` and keep them; what was done, in words. Raises FetchFailed.

    `only` these instances: SOP Instance UID -> Series Instance UID.
    """
    pacs = source(config)
    if archive.is_forgotten(study_instance_uid):
        again = f"`fourview forget --allow-again {study_instance_uid}` lets it come again"
        raise FetchFailed(f"study {study_instance_uid} was forgotten; {again}", worth_retrying=False)
    accepted = kept_for(image_kinds(config))
    counts: dict[str, int] = {}
    for data in fetch_study(pacs, study_instance_uid, only):
        if not files.has_room():
            raise FetchFailed(f"study {study_instance_uid} was not fetched, or in part: the disk is nearly full", worth_retrying=True)
        received = files.incoming / f"{secrets.token_hex(16)}.dcm"
        try:
            keys = _read(data, received, config.dialect.of(pacs.ae_title).sender.character_set)
            if keys.study_instance_uid != study_instance_uid or (only is not None and keys.sop_instance_uid not in only):
                raise FetchFailed(f"{pacs.name} sent another object than was asked for of study {study_instance_uid}", worth_retrying=False)
            kept = keep_file(
                keys,
                received,
                ignored_because(keys, accepted),
                archive=archive,
                files=files,
                calling_ae_title=pacs.ae_title,
                called_ae_title=config.dicom.ae_title,
                origin="fetched",
            ).value
        except Refused as refused:
            if refused.status is Status.OUT_OF_RESOURCES:
                # A part of an exam must not be read as if it were the whole.
                raise FetchFailed(f"study {study_instance_uid} was fetched in part: {refused.comment}", worth_retrying=True) from refused
            kept = f"refused ({refused.comment})"
        finally:
            received.unlink(missing_ok=True)
        counts[kept] = counts.get(kept, 0) + 1
    words = {Kept.NEW.value: "new", Kept.DUPLICATE.value: "known already"}
    return f"fetched from {pacs.name}: " + ", ".join(f"{count} {words.get(kept, kept)}" for kept, count in sorted(counts.items()))


def _read(data: bytes, received: Path, character_set: str) -> Keys:
    """Write one object to `received` and read its keys, with the checks of every door. Raises Refused, and OSError."""
    received.write_bytes(without_preamble(data))
    meta = read_meta(received)
    check_size(len(data), meta.sop_class_uid)
    if meta.transfer_syntax_uid not in DECODABLE:  # a data set in another one would be garbage, and a deflated one would be inflated
        raise Refused(Status.TRANSFER_SYNTAX_NOT_SUPPORTED, "its transfer syntax is not supported")
    keys = read_keys(received, character_set)
    check_uids(keys)
    return keys
