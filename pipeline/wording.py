"""Every sentence that a result object says, in English and Korean, in one place, so that they can be read and agreed on together.

A result states what an algorithm computed and never what a patient has: the class is "highest-scoring", an uncalibrated number is a
"score", there is no verdict on a breast or a study.

Not translated: the meanings of codes (Code Meaning (0008,0104)), Series Description, which lists of every PACS must be able to show, and
what comes as a finished English sentence from elsewhere: the warnings of headers and pixels, and why a view failed. They are shown as they
are in both languages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from store.study import RANKING, Loser, ModelIdentity, Outcome, View

NORMAL_CLASS = "Normal"


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The fixed sentences of one language. Names in braces are filled in by the methods below."""

    code: tuple[str, str]  # RFC 5646 tag and its English name, for Language of Content Item and Descendants (121049, DCM)

    banner: str
    not_reviewed: str
    reduced_image: str
    highest_class_label: str
    uncalibrated: str
    nothing_excluded: str
    no_image: str
    no_picture: str
    not_analysed: str
    uid_ends_in: str
    derivation: str
    withdrawn: str
    withdrawal: str
    withdrawal_in_short: str  # at most 64 bytes in UTF-8: some readers count bytes where LO counts characters
    notice_of_withdrawal: str
    heat_map: str
    no_heat_map: str
    weak_response: str
    strong_response: str
    untrained: str
    simulated: str

    sides: Mapping[str, str]
    class_names: Mapping[str, str]  # a class that is not listed is shown by its own name
    ranking: Sequence[str]  # the rules of the election in words, true of the image that was used

    normal_alone: str
    score_of_class: str
    score_of_view: str
    analysed: str
    analysed_of_side: str
    partial: str
    partial_of_side: str
    unilateral: str
    missing: str
    failed: str
    with_implant: str
    assigned: str
    assigned_side: str
    assigned_position: str
    assigned_both: str
    rule: str
    and_rule: str
    used_and_not_used: str
    other_class: str
    several: str
    more: str
    nothing_excluded_of: str
    version_alone: str
    version_replaces: str
    version_replaces_at: str
    study_and_result: str
    result_alone: str
    model_line: str
    weights: str

    def meaningless(self, model: ModelIdentity) -> str:
        """The warning over numbers that mean nothing; "" when the model is a trained one."""
        return self.meaningless_of(engine=model.engine, trained=model.trained)

    def meaningless_of(self, *, engine: str, trained: bool) -> str:
        """The same, of a model of which no more is known."""
        if engine == "simulated":
            return self.simulated
        return "" if trained else self.untrained

    def class_name(self, class_name: str) -> str:
        """A class as people call it."""
        return self.class_names.get(class_name, class_name)

    def qualified(self, class_name: str) -> str:
        """A class that scored highest; Normal never without saying what is meant by it."""
        return self.normal_alone if class_name == NORMAL_CLASS else self.class_name(class_name)

    def score_of(self, class_name: str) -> str:
        """What the number of one class is called."""
        return self.score_of_class.format(class_name=self.class_name(class_name))

    def score(self, probability: float) -> str:
        """The highest score of a view, as the page shows it."""
        return self.score_of_view.format(per_cent=f"{100 * probability:.1f}")

    def views_analysed(self, count: int, slots: Sequence[View]) -> str:
        """How many of the views that the result is about have scores."""
        side = _one_side(slots)
        if side:
            return self.analysed_of_side.format(count=count, all=len(slots), side=self.sides[side])
        return self.analysed.format(count=count, all=len(slots))

    def coverage(self, outcome: Outcome, slots: Sequence[View]) -> str:
        """What PARTIAL or UNILATERAL means for this study, whose result is about `slots`; "" when complete."""
        side = _one_side(slots)
        if outcome is Outcome.PARTIAL:
            return self.partial_of_side.format(side=self.sides[side]) if side else self.partial
        if outcome is Outcome.UNILATERAL:
            return self.unilateral.format(side=self.sides[side], other=self.sides["R" if side == "L" else "L"])
        return ""

    def missing_view(self, view: View) -> str:
        return self.missing.format(view=view)

    def failed_view(self, view: View, failure: str) -> str:
        return self.failed.format(view=view, failure=failure)

    def implant(self, view: View) -> str:
        return self.with_implant.format(view=view)

    def assigned_by_operator(self, view: View, *, side: bool, position: bool) -> str:
        """That a person and not the image's header told the side (`side`), the projection (`position`), or both."""
        what = self.assigned_both if side and position else self.assigned_side if side else self.assigned_position
        return self.assigned.format(view=view, what=what)

    def by_rule(self, loser: Loser) -> str:
        """What decided against `loser`: the rule in words, true of the image that was used, and its number."""
        return self.rule.format(reason=self.ranking[loser.rule - 1], number=loser.rule)

    def passed_over(self, loser: Loser) -> str:
        """Which image stands for a view, by which rule, and which one does not."""
        return self.used_and_not_used.format(
            view=loser.view, used=loser.winner_sop_instance_uid, reason=self.by_rule(loser), not_used=loser.sop_instance_uid
        )

    def scored_otherwise(self, view: View, class_name: str, uid: str) -> str:
        """A passed-over image that contradicts the one that was used: it may show what the other does not. `uid` may be its end only."""
        return self.other_class.format(view=view, class_name=self.qualified(class_name), uid=uid)

    def several_exposures(self, view: View, losers: Iterable[Loser]) -> str:
        """Which rules chose among exposures of one view that are equal by everything that says how good they are."""
        reasons = dict.fromkeys(self.by_rule(loser) for loser in losers)
        return self.several.format(view=view, reasons=self.and_rule.join(reasons))

    def more_notes(self, count: int) -> str:
        """How many notes the page has no room for."""
        return self.more.format(count=count)

    def nothing_excluded_in(self, views: Iterable[View]) -> str:
        """Which images `nothing_excluded` is said of."""
        return self.nothing_excluded_of.format(views=", ".join(views), sentence=self.nothing_excluded)

    @property
    def nothing_excluded_by_normal(self) -> str:
        """`nothing_excluded` for a list, in which the classes of many images stand by their names alone."""
        return self.nothing_excluded_of.format(views=self.class_name(NORMAL_CLASS), sentence=self.nothing_excluded)

    def version(self, number: int, *, replaces: bool, made: datetime, replaces_at: datetime | None) -> str:
        """Which version this is, and which one it makes obsolete: that of `replaces_at`, with its date when `made` on another day.

        Both times are local to the installation.
        """
        if not replaces:
            return self.version_alone.format(number=number)
        if replaces_at is None:
            return self.version_replaces.format(number=number, old=number - 1)
        when = f"{replaces_at:%H:%M}" if replaces_at.date() == made.date() else f"{replaces_at:%Y-%m-%d %H:%M}"
        return self.version_replaces_at.format(number=number, old=number - 1, when=when)

    def dates(self, study_date: str, made: datetime, timezone: str) -> str:
        """When the study was made (`study_date` as DA, "" when unknown) and when this result was."""
        result = f"{made:%Y-%m-%d %H:%M} {timezone}"
        if not study_date:
            return self.result_alone.format(result=result)
        return self.study_and_result.format(study=f"{study_date[:4]}-{study_date[4:6]}-{study_date[6:]}", result=result)

    def model(self, identity: ModelIdentity) -> str:
        """The model in one line: name, version, weights, profile."""
        return self.model_line.format(
            name=identity.name,
            version=identity.version,
            weights=self.weights.format(start=identity.weights_sha256[:12]) if identity.weights_sha256 else "",
            profile=identity.profile,
            engine=identity.engine,
        )


def _one_side(slots: Sequence[View]) -> str:
    """The side that `slots` are all of, "L" or "R"; "" when they are of both."""
    sides = {view.laterality for view in slots}
    return sides.pop() if len(sides) == 1 else ""


# --- the languages ---------------------------------------------------------------------------------------------------------------------

ENGLISH = Wording(
    code=("en", "English"),
    banner="AI output for research use only. NOT FOR DIAGNOSTIC USE.",
    not_reviewed="Not reviewed by a physician.",
    reduced_image="Reduced image - do not read from this page",
    highest_class_label="AI highest-scoring class",
    uncalibrated="Scores are uncalibrated softmax outputs, not probabilities of disease.",
    nothing_excluded="No class scored above Normal in this image. This does not exclude cancer.",
    no_image="No image",
    no_picture="No picture",
    not_analysed="Not analysed",
    uid_ends_in="Image UID ends in",
    derivation="Reduced views with the scores of an AI classifier beside them",
    withdrawn="WITHDRAWN",
    withdrawal=(
        "WITHDRAWN: the earlier result of this study must not be used. This version replaces it and says nothing about the images."
    ),
    withdrawal_in_short="WITHDRAWN: the earlier result must not be used",
    notice_of_withdrawal="Notice that the earlier result of this study is withdrawn; drawn from no image",
    heat_map="Where the network responded for the class; no location of a finding",
    no_heat_map="No heat map: the highest-scoring class is Normal",
    weak_response="weak",
    strong_response="strong",
    untrained="MEANINGLESS NUMBERS - UNTRAINED MODEL",
    simulated="MEANINGLESS NUMBERS - SIMULATED MODEL",
    sides={"L": "left", "R": "right"},
    class_names={},
    ranking=RANKING,
    normal_alone="Normal (no other class scored higher)",
    score_of_class="AI score, uncalibrated: {class_name}",
    score_of_view="score {per_cent} %",
    analysed="{count} of {all} views analysed",
    analysed_of_side="{count} of {all} views of the {side} breast analysed",
    partial="PARTIAL: this result does not cover all four views.",
    partial_of_side="PARTIAL: this result does not cover both views of the {side} breast.",
    unilateral="UNILATERAL: this result covers the {side} breast only; nothing is said about the {other}.",
    missing="{view}: no usable image.",
    failed="{view}: not analysed: {failure}",
    with_implant="{view}: breast implant present",
    assigned="{view}: {what} assigned by an operator",
    assigned_side="side",
    assigned_position="view",
    assigned_both="side and view",
    rule="{reason} (rule {number})",
    and_rule=" and ",
    used_and_not_used="{view}: image {used} was used because {reason}; not used: {not_used}",
    other_class="Another {view} of this study scored highest for {class_name}; see image {uid}.",
    several="{view}: several exposures of this view; one was used because {reasons}",
    more="{count} more in the structured report of this version",
    nothing_excluded_of="{views}: {sentence}",
    version_alone="Version {number}",
    version_replaces="Version {number}, replaces version {old}",
    version_replaces_at="Version {number}, replaces version {old} of {when}",
    study_and_result="Study {study}, result {result}",
    result_alone="Result {result}",
    model_line="{name} {version}{weights}, profile {profile}, engine {engine}",
    weights=", weights {start}",
)

#: Words that a reader must recognise in every language (PARTIAL, UNTRAINED ...) stand in brackets behind their translation.
KOREAN = Wording(
    code=("ko", "Korean"),
    banner="연구용 AI 분석 결과입니다. 진단 목적으로 사용할 수 없습니다.",
    not_reviewed="의사의 검토를 거치지 않은 결과입니다.",
    reduced_image="축소된 영상입니다 - 이 페이지로 판독하지 마십시오",
    highest_class_label="AI 최고 점수 분류",
    uncalibrated="점수는 보정되지 않은 소프트맥스 출력값이며, 질환이 있을 확률이 아닙니다.",
    nothing_excluded="이 영상에서 정상보다 높은 점수를 받은 분류가 없습니다. 그러나 이것으로 암을 배제할 수는 없습니다.",
    no_image="영상 없음",
    no_picture="표시할 영상 없음",
    not_analysed="분석되지 않음",
    uid_ends_in="영상 UID 끝자리",
    derivation="AI 분류기의 점수를 옆에 표시한 축소 영상",
    withdrawn="철회됨",
    withdrawal=(
        "철회됨(WITHDRAWN): 이 검사의 이전 결과를 사용해서는 안 됩니다. "
        "이 버전은 이전 결과를 대체하며, 영상에 대해서는 어떠한 내용도 제시하지 않습니다."
    ),
    withdrawal_in_short="철회됨(WITHDRAWN): 이전 결과 사용 금지",
    notice_of_withdrawal="이 검사의 이전 결과가 철회되었음을 알리는 통지이며, 영상을 사용하지 않고 작성되었습니다",
    heat_map="해당 분류에 대해 신경망이 반응한 영역이며, 병변의 위치를 나타내지 않습니다",
    no_heat_map="히트맵 없음: 최고 점수 분류가 정상입니다",
    weak_response="약함",
    strong_response="강함",
    untrained="의미 없는 수치 - 학습되지 않은 모델(UNTRAINED)",
    simulated="의미 없는 수치 - 모의 모델(SIMULATED)",
    sides={"L": "왼쪽", "R": "오른쪽"},
    class_names={
        "Mass": "종괴",
        "Calcification": "석회화",
        "Architectural/Asymmetry": "구조 왜곡/비대칭",
        NORMAL_CLASS: "정상",
    },
    ranking=(
        "보조 촬영을 뜻하는 촬영 수식어(view modifier)가 없음",
        "보형물 유무에 맞는 촬영임(보형물이 있으면 보형물을 밀어낸 촬영, 없으면 일반 촬영)",
        "유방의 일부만 촬영한 영상이 아님",
        "영상 종류의 우선순위가 더 높음",
        "손실 압축되지 않은 영상임",
        "촬영 방향이 더 확실한 근거로 확인됨",
        "더 나중에 촬영됨",
        "영상의 크기가 더 큼",
        "Acquisition Number 또는 Instance Number가 더 큼",
        "SOP Instance UID가 더 작음",
    ),
    normal_alone="정상(더 높은 점수를 받은 다른 분류 없음)",
    score_of_class="AI 점수(보정되지 않음): {class_name}",
    score_of_view="점수 {per_cent} %",
    analysed="촬영상 {all}개 중 {count}개 분석됨",
    analysed_of_side="{side} 유방 촬영상 {all}개 중 {count}개 분석됨",
    partial="부분 결과(PARTIAL): 이 결과는 네 촬영상을 모두 포함하지 않습니다.",
    partial_of_side="부분 결과(PARTIAL): 이 결과는 {side} 유방의 두 촬영상을 모두 포함하지 않습니다.",
    unilateral="편측 결과(UNILATERAL): 이 결과는 {side} 유방만을 대상으로 하며, {other} 유방에 대해서는 어떠한 내용도 제시하지 않습니다.",
    missing="{view}: 사용할 수 있는 영상이 없습니다.",
    failed="{view}: 분석되지 않음: {failure}",
    with_implant="{view}: 유방 보형물이 있음",
    assigned="{view}: 사용자가 직접 지정함({what})",
    assigned_side="좌우",
    assigned_position="촬영 방향",
    assigned_both="좌우 및 촬영 방향",
    rule="{reason} (규칙 {number})",
    and_rule=", ",
    used_and_not_used="{view}: 사용한 영상 {used}; 사용하지 않은 영상 {not_used}; 선택 근거: {reason}",
    other_class="이 검사의 다른 {view} 영상에서는 최고 점수 분류가 다릅니다: {class_name}. 확인할 영상: {uid}.",
    several="{view}: 같은 방향의 촬영이 여러 번 있어 하나를 사용함; 선택 근거: {reasons}",
    more="이 버전의 구조화 보고서에 {count}건이 더 있습니다",
    nothing_excluded_of="{views}: {sentence}",
    version_alone="버전 {number}",
    version_replaces="버전 {number}, 버전 {old} 대체",
    version_replaces_at="버전 {number}, {when}의 버전 {old} 대체",
    study_and_result="검사 {study}, 결과 {result}",
    result_alone="결과 {result}",
    model_line="{name} {version}{weights}, 프로필 {profile}, 엔진 {engine}",
    weights=", 가중치 {start}",
)

LANGUAGES: Mapping[str, Wording] = {wording.code[0]: wording for wording in (ENGLISH, KOREAN)}


def in_language(language: str) -> Wording:
    """The sentences of `language` ("en" or "ko"). Raises ValueError for any other."""
    if language not in LANGUAGES:
        raise ValueError(f"no sentences in the language {language!r}: choose one of {', '.join(LANGUAGES)}")
    return LANGUAGES[language]


# --- English in every language: what codes mean and what lists show ---------------------------------------------------------------------


def series_description(model: ModelIdentity) -> str:
    """Series Description (0008,103E), the only text that a PACS list shows; at most 64 characters."""
    if model.engine == "simulated":
        return "SIMULATED AI result - NOT FOR DIAGNOSTIC USE"
    return "AI result - NOT FOR DIAGNOSTIC USE" if model.trained else "UNTRAINED AI result - NOT FOR DIAGNOSTIC USE"


def highest_class(class_name: str) -> str:
    """The Finding of a view: a Code Meaning."""
    return f"AI highest-scoring class: {ENGLISH.normal_alone if class_name == NORMAL_CLASS else class_name}"


def class_of(class_name: str) -> str:
    """What an output of the classifier is called: a Code Meaning."""
    return f"AI classifier output: {class_name}"
