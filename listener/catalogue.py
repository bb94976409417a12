"""Every sentence that the pages say, in English and Korean side by side, so that neither language can lack one.

What a result says (classes, scores, warnings) stands in `pipeline.wording`; the pages say the same words. What the store writes (reasons,
the timeline, answers to requests) is English in both languages, and the pages mark it as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline import wording


class Sentence(NamedTuple):
    """One sentence in each language; names in braces are filled in, the same in both."""

    en: str
    ko: str


SENTENCES: Mapping[str, Sentence] = {
    # --- on every page
    "language": Sentence("English", "한국어"),
    "skip": Sentence("Skip to the content", "본문으로 건너뛰기"),
    "pages": Sentence("Pages", "페이지"),
    "studies": Sentence("Studies", "검사"),
    "study": Sentence("Study", "검사"),
    "deliveries": Sentence("Deliveries", "전송"),
    "status": Sentence("Status", "상태"),
    "signed_in": Sentence("Signed in as {name} ({role})", "{name} ({role})(으)로 로그인됨"),
    "role_viewer": Sentence("viewer", "조회자"),
    "role_operator": Sentence("operator", "운영자"),
    "role_admin": Sentence("admin", "관리자"),
    "stale": Sentence(
        "The server does not answer. What you see is as of {time}; it goes on by itself when the server answers again.",
        "서버가 응답하지 않습니다. 지금 보이는 내용은 {time} 기준이며, 서버가 다시 응답하면 자동으로 갱신됩니다.",
    ),
    "failed_request": Sentence("That did not work: {reason}", "요청을 처리하지 못했습니다: {reason}"),
    "close": Sentence("Close", "닫기"),
    "messages": Sentence("Messages", "메시지"),
    # --- the list
    "filter": Sentence("Filter", "필터"),
    "date_from": Sentence("Study date from", "검사일 시작"),
    "date_to": Sentence("Study date to", "검사일 끝"),
    "patient_id": Sentence("Patient ID", "환자 ID"),
    "patient_id_hint": Sentence("exact, or with * at its end", "전체 ID 또는 끝에 * 사용"),
    "state": Sentence("State", "상태"),
    "class": Sentence("Class", "분류"),
    "sender": Sentence("Sender (AE title)", "송신 장비(AE title)"),
    "device": Sentence("Device", "촬영 장비"),
    "any": Sentence("any", "전체"),
    "apply": Sentence("Show", "조회"),
    "clear": Sentence("Clear", "초기화"),
    "patient": Sentence("Patient", "환자"),
    "study_date": Sentence("Study date", "검사일"),
    "result": Sentence("Result", "결과"),
    "last_image": Sentence("Last image", "마지막 영상 수신"),
    "from": Sentence("From", "송신"),
    "no_name": Sentence("(no name)", "(이름 없음)"),
    "no_result": Sentence("no result yet", "아직 결과 없음"),
    "until": Sentence("until {time}", "{time}까지"),
    "version": Sentence("Version {number}", "버전 {number}"),
    "next": Sentence("Next", "다음"),
    "first": Sentence("First page", "첫 페이지"),
    "paging": Sentence("Pages of the list", "목록 페이지"),
    "shown": Sentence(
        "{count} studies on this page, the one that received an image last comes first", "이 페이지의 검사 {count}건, 최근 수신 순"
    ),
    "no_studies": Sentence("No study has come yet.", "아직 수신된 검사가 없습니다."),
    "no_studies_hint": Sentence(
        "Mammograms that are sent here by C-STORE appear by themselves; you may also drop DICOM files above.",
        "C-STORE로 전송된 유방촬영 영상은 자동으로 나타납니다. 위에 DICOM 파일을 끌어다 놓을 수도 있습니다.",
    ),
    "no_match": Sentence("No study meets these conditions.", "조건에 맞는 검사가 없습니다."),
    "bad_place": Sentence(
        "That place in the list does not exist any more; this is its beginning.", "목록의 해당 위치를 찾을 수 없어 처음부터 표시합니다."
    ),
    "bad_date": Sentence("A date is written as 2026-11-29.", "날짜는 2026-11-29와 같이 입력하십시오."),
    # --- states of a study
    "collecting": Sentence("Collecting", "수집 중"),
    "analysing": Sentence("Analysing", "분석 중"),
    "analysed": Sentence("Analysed", "분석 완료"),
    "incomplete": Sentence("Incomplete", "불완전"),
    "held": Sentence("Held", "보류"),
    "ignored": Sentence("Ignored", "제외"),
    "failed": Sentence("Failed", "실패"),
    "withdrawn": Sentence("Withdrawn", "철회됨"),
    "about_collecting": Sentence("Images are still awaited.", "아직 도착하지 않은 영상을 기다리고 있습니다."),
    "about_analysing": Sentence("The images are being read.", "영상을 분석하고 있습니다."),
    "about_analysed": Sentence("The result below is the current one.", "아래 결과가 현재 결과입니다."),
    "about_incomplete": Sentence(
        "Views are missing: scores are shown here, nothing is sent.", "누락된 촬영상이 있어 점수는 여기에만 표시되고 전송되지 않습니다."
    ),
    "about_held": Sentence(
        "A person must decide; nothing is sent meanwhile.", "사람의 결정이 필요합니다. 그동안 아무것도 전송되지 않습니다."
    ),
    "about_ignored": Sentence("No result is made of this study.", "이 검사에 대해서는 결과를 만들지 않습니다."),
    "about_failed": Sentence("No view could be read.", "분석할 수 있었던 촬영상이 없습니다."),
    "about_withdrawn": Sentence("The earlier result must not be used.", "이전 결과를 사용해서는 안 됩니다."),
    "paused_sending": Sentence("Sending is paused since {time} by {person}.", "{time}부터 {person}이(가) 전송을 일시 중지했습니다."),
    "paused_analysing": Sentence("Analysing is paused since {time} by {person}.", "{time}부터 {person}이(가) 분석을 일시 중지했습니다."),
    "same_patient": Sentence("Same patient, same day, another study (not merged):", "같은 환자의 같은 날 다른 검사(병합되지 않음):"),
    "same_image": Sentence("Image {uid} came in another study too:", "영상 {uid}이(가) 다른 검사에도 들어 있습니다:"),
    # --- the cards
    "results": Sentence("Result", "결과"),
    "current_version": Sentence("Version {number} of {time}", "버전 {number}, {time}"),
    "no_version": Sentence("No version yet: these are the scores so far.", "아직 확정된 버전이 없습니다. 지금까지의 점수입니다."),
    "model": Sentence("Model {name} {version}", "모델 {name} {version}"),
    "all_scores": Sentence("Scores of all classes", "모든 분류의 점수"),
    "score_of": Sentence("Score", "점수"),
    "image_number": Sentence("Image {number}", "영상 {number}"),
    "empty": Sentence("No image of this view has come.", "이 촬영상의 영상이 도착하지 않았습니다."),
    "not_usable": Sentence("No usable image of this view.", "이 촬영상으로 쓸 수 있는 영상이 없습니다."),
    "card_waiting": Sentence("The image is here and not read yet.", "영상이 도착했으나 아직 분석되지 않았습니다."),
    "card_newer": Sentence(
        "A newer image of this view is here; it is not in this version.",
        "이 촬영상의 더 새로운 영상이 있으나 이 버전에는 포함되지 않았습니다.",
    ),
    "card_other_patient": Sentence(
        "This image names another Patient ID than the study: {patient_id}", "이 영상의 환자 ID가 검사의 환자 ID와 다릅니다: {patient_id}"
    ),
    "passed_over": Sentence("Chosen before {uid}: {reason}", "{uid}보다 우선 선택됨: {reason}"),
    "heat_maps": Sentence("Show heat maps", "히트맵 표시"),
    "heat_map_caption": Sentence(
        "Shows what influenced the score. Not a lesion location.", "점수에 영향을 준 영역을 나타냅니다. 병변의 위치가 아닙니다."
    ),
    "no_heat_maps": Sentence("This model gives no heat maps.", "이 모델은 히트맵을 제공하지 않습니다."),
    "picture_of": Sentence("Reduced picture of {title}", "{title}의 축소 영상"),
    "heat_map_of": Sentence("Reduced picture of {title} with its heat map", "히트맵을 겹친 {title}의 축소 영상"),
    "read_on_demand": Sentence("Read on demand", "요청에 의한 분석"),
    "on_demand_about": Sentence(
        "These images were read because a person asked. Nothing is sent of them unless somebody presses Send.",
        "사용자의 요청으로 분석된 영상입니다. 누군가 ‘전송’을 누르지 않는 한 아무것도 전송되지 않습니다.",
    ),
    "other_images": Sentence("Images in no slot", "사용되지 않은 영상"),
    "image": Sentence("Image", "영상"),
    "what_it_is": Sentence("What it is", "구분"),
    "reason": Sentence("Reason", "사유"),
    # --- decisions
    "decide": Sentence("Decide", "조치"),
    "why": Sentence("Reason (is kept with your name)", "사유(이름과 함께 기록됨)"),
    "reprocess": Sentence("Analyse again", "다시 분석"),
    "about_reprocess": Sentence(
        "Reads the study with the model and the options of now. A new version is made only if something changed.",
        "현재 모델과 설정으로 검사를 다시 분석합니다. 달라진 것이 있을 때만 새 버전이 만들어집니다.",
    ),
    "release": Sentence("Release", "보류 해제"),
    "about_release_held": Sentence("Look at it, then let it go on.", "확인한 뒤 계속 진행하게 하십시오."),
    "about_release_incomplete": Sentence(
        "The missing views may still come. Release sends what is here, marked PARTIAL.",
        "누락된 촬영상이 나중에 올 수 있습니다. 보류를 해제하면 지금 있는 것이 PARTIAL로 표시되어 전송됩니다.",
    ),
    "as_it_stands": Sentence("Release as it stands", "있는 그대로 해제"),
    "release_by": Sentence("Release with this choice", "이 선택으로 해제"),
    "choose": Sentence("choose", "선택"),
    "choice_exclude": Sentence("Drop image {uid}", "영상 {uid} 제외"),
    "choice_view": Sentence("Image {uid} shows", "영상 {uid}의 촬영상"),
    "choice_accept": Sentence(
        "The images are of one patient, as the newest name it", "영상은 한 환자의 것이며, 가장 최근 영상의 정보가 맞음"
    ),
    "choice_patient_of": Sentence(
        "The images are of one patient, as image {uid} names it", "영상은 한 환자의 것이며, 영상 {uid}의 정보가 맞음"
    ),
    "choice_pacs": Sentence("The destination that names another patient is right", "다른 환자로 답한 전송 대상의 정보가 맞음"),
    "choice_file": Sentence("Take file {number}", "파일 {number} 사용"),
    "withdraw": Sentence("Withdraw", "결과 철회"),
    "about_withdraw": Sentence(
        "What was sent is replaced by a version that says WITHDRAWN, and nothing is read any more.",
        "전송된 결과는 철회됨(WITHDRAWN)으로 표시된 버전으로 대체되며, 더 이상 분석하지 않습니다.",
    ),
    "send": Sentence("Send", "전송"),
    "about_send": Sentence(
        "Sends the result whatever the rules say. Images that were read on demand count as received from then on.",
        "규칙과 관계없이 결과를 전송합니다. 요청에 의해 분석된 영상은 그때부터 정식으로 수신한 것으로 처리됩니다.",
    ),
    "send_to": Sentence("Send also to", "추가 전송 대상"),
    "by_the_rules": Sentence("only where the rules send it", "규칙에 정해진 곳만"),
    "retry": Sentence("Retry", "다시 전송"),
    "asked_open": Sentence("Asked for: {what}. A worker answers in a moment.", "요청됨: {what}. 곧 워커가 응답합니다."),
    "asked_accepted": Sentence("Accepted: {what}.", "수락됨: {what}."),
    "asked_refused": Sentence("Not done: {what}.", "수행되지 않음: {what}."),
    "told_retried": Sentence("{count} will be sent again.", "{count}건을 다시 전송합니다."),
    "told_paused": Sentence("Paused.", "일시 중지했습니다."),
    "told_resumed": Sentence("Resumed.", "다시 시작했습니다."),
    # --- versions, deliveries, timeline
    "versions": Sentence("Versions", "버전"),
    "made": Sentence("Made", "작성"),
    "outcome": Sentence("Covers", "범위"),
    "outcome_COMPLETE": Sentence("COMPLETE: all four views", "전체(COMPLETE): 네 촬영상 모두"),
    "outcome_PARTIAL": Sentence("PARTIAL: not all views", "부분(PARTIAL): 일부 촬영상"),
    "outcome_UNILATERAL": Sentence("UNILATERAL: one side", "편측(UNILATERAL): 한쪽 유방"),
    "outcome_WITHDRAWN": Sentence("WITHDRAWN", "철회됨(WITHDRAWN)"),
    "objects": Sentence("Objects", "객체"),
    "object_sr": Sentence("Structured report", "구조화 보고서"),
    "object_page": Sentence("Result page", "결과 페이지"),
    "object_original": Sentence("Image as received", "수신한 원본 영상"),
    "untrained_tag": Sentence("UNTRAINED model: meaningless numbers", "학습되지 않은 모델(UNTRAINED): 의미 없는 수치"),
    "no_deliveries": Sentence("Nothing of this study is to be sent.", "이 검사에서 전송할 것이 없습니다."),
    "destination": Sentence("Destination", "전송 대상"),
    "what": Sentence("What", "대상"),
    "when": Sentence("When", "시각"),
    "again_at": Sentence("tried again at {time}", "{time}에 재시도"),
    "delivery_waiting": Sentence("waiting", "대기"),
    "delivery_sending": Sentence("being sent", "전송 중"),
    "delivery_sent": Sentence("sent", "전송됨"),
    "delivery_confirmed": Sentence("confirmed", "수신 확인됨"),
    "delivery_refused": Sentence("refused", "거부됨"),
    "delivery_expired": Sentence("expired", "기한 만료"),
    "delivery_cancelled": Sentence("cancelled", "취소됨"),
    "remedy_waiting": Sentence("Nothing to do: it is tried by itself.", "조치가 필요 없습니다. 자동으로 전송됩니다."),
    "remedy_refused": Sentence(
        "Mend what the reason names at the destination, then press Retry.",
        "사유에 적힌 문제를 전송 대상에서 해결한 뒤 ‘다시 전송’을 누르십시오.",
    ),
    "remedy_expired": Sentence(
        "See that the destination answers (`fourview check`), then press Retry.",
        "전송 대상이 응답하는지 확인한 뒤(`fourview check`) ‘다시 전송’을 누르십시오.",
    ),
    "remedy_cancelled": Sentence(
        "It goes back by itself if the result still stands when the study goes on.",
        "검사가 계속 진행되고 결과가 유효하면 자동으로 다시 전송됩니다.",
    ),
    "timeline": Sentence("Timeline", "진행 기록"),
    "details": Sentence("Details", "상세 정보"),
    "rule": Sentence("Rule", "규칙"),
    "rules": Sentence("Rules", "규칙"),
    "rules_problem": Sentence("The rules cannot be asked about this study:", "이 검사에 대해 규칙을 확인할 수 없습니다:"),
    "rule_says": Sentence("Says", "판정"),
    "rule_true": Sentence("true", "참"),
    "rule_false": Sentence("false", "거짓"),
    "rule_unknown": Sentence("unknown", "알 수 없음"),
    "rule_decides": Sentence("decides", "이 규칙이 결정함"),
    "rule_not_reached": Sentence("not reached", "앞선 규칙이 먼저 결정함"),
    "rule_needs": Sentence("needs", "필요 조건:"),
    "rule_then": Sentence("Decided when it came:", "수신 당시의 결정:"),
    "rule_forwards": Sentence("images forwarded to", "영상 전달 대상:"),
    "rule_now": Sentence("Today's rules say:", "현재 규칙의 판정:"),
    "expected": Sentence("Expected views", "필요한 촬영상"),
    "received": Sentence("Received", "수신"),
    "revision": Sentence("Revision", "수정 번호"),
    "birth_date": Sentence("Born", "생년월일"),
    # --- the queue
    "pace_above": Sentence(
        "{title} sends faster than its pace: this study is read after all others.",
        "{title}에서 허용 속도보다 빠르게 전송하여 이 검사는 다른 모든 검사 다음에 분석됩니다.",
    ),
    "queue_before": Sentence(
        "waits to be read: {count} images before it, priority {priority}", "분석 대기: 앞에 영상 {count}개, 우선순위 {priority}"
    ),
    "queue_asked": Sentence("waits to be read first: a person asked for it", "사용자의 요청으로 가장 먼저 분석 예정"),
    "queue_begun": Sentence("is being read", "분석 중"),
    "queue_behind": Sentence("above the pace of its sender", "송신 장비의 허용 속도 초과"),
    # --- drop zone
    "drop": Sentence("Drop DICOM files here to have them analysed", "분석할 DICOM 파일을 여기에 끌어다 놓으십시오"),
    "drop_choose": Sentence("or choose files", "또는 파일 선택"),
    "drop_send": Sentence("Analyse", "분석"),
    "drop_about": Sentence(
        "They are read first and shown; nothing is sent of them.", "가장 먼저 분석되어 화면에만 표시되고 전송되지 않습니다."
    ),
    "drop_busy": Sentence("Taking {count} files ...", "파일 {count}개를 받는 중 ..."),
    "drop_none": Sentence("Choose at least one file.", "파일을 하나 이상 선택하십시오."),
    "drop_failed": Sentence("{name}: {reason}", "{name}: {reason}"),
    "drop_one": Sentence("The other files belong to this study:", "나머지 파일은 다음 검사에 속합니다:"),
    "drop_several": Sentence("The files belong to several studies:", "파일이 여러 검사에 속합니다:"),
    # --- deliveries page
    "given_up": Sentence("Given up: a person must act", "포기됨: 사람의 조치가 필요"),
    "no_given_up": Sentence("Nothing was given up.", "포기된 전송이 없습니다."),
    "open_deliveries": Sentence("On their way", "진행 중"),
    "no_open_deliveries": Sentence("Nothing is on its way.", "진행 중인 전송이 없습니다."),
    "count": Sentence("Count", "건수"),
    "since": Sentence("Since", "시작"),
    "remedy": Sentence("What to do", "조치 방법"),
    "retry_all": Sentence("Retry all {count}", "{count}건 모두 다시 전송"),
    "first_shown": Sentence("The newest {count} are shown.", "최근 {count}건을 표시합니다."),
    # --- status page
    "all_well": Sentence("Nothing needs a person.", "조치가 필요한 문제가 없습니다."),
    "troubles": Sentence("{count} things need a person", "조치가 필요한 문제 {count}건"),
    "run_command": Sentence("Begin with", "먼저 실행"),
    "queue": Sentence("Waiting now", "현재 대기"),
    "studies_waiting": Sentence("studies wait for a worker", "워커를 기다리는 검사"),
    "images_waiting": Sentence("images wait to be read", "분석을 기다리는 영상"),
    "deliveries_open": Sentence("deliveries are open", "진행 중인 전송"),
    "waits_longest": Sentence("the longest since {time}", "가장 오래된 것은 {time}부터"),
    "today": Sentence("Today", "오늘"),
    "images_today": Sentence("images received", "수신한 영상"),
    "versions_today": Sentence("results made", "작성된 결과"),
    "sent_today": Sentence("objects sent", "전송된 객체"),
    "studies_by_state": Sentence("Studies by state", "상태별 검사"),
    "last_error": Sentence("Last error", "마지막 오류"),
    "no_error": Sentence("none", "없음"),
    "disk": Sentence("Disk", "디스크"),
    "disk_free": Sentence("{free} GiB free in the {volume}", "여유 공간 {free} GiB ({volume})"),
    "disk_floor": Sentence("Nothing is received below {floor} GiB.", "{floor} GiB 미만이면 수신하지 않습니다."),
    "disk_unreadable": Sentence("The disk cannot be read.", "디스크를 읽을 수 없습니다."),
    "database": Sentence("Database", "데이터베이스"),
    "database_ok": Sentence("answers", "응답함"),
    "database_away": Sentence("does not answer", "응답하지 않음"),
    "processes": Sentence("Processes", "프로세스"),
    "no_processes": Sentence("No process runs.", "실행 중인 프로세스가 없습니다."),
    "process": Sentence("Process", "프로세스"),
    "role": Sentence("Role", "역할"),
    "started": Sentence("Started", "시작 시각"),
    "pauses": Sentence("Pauses", "일시 중지"),
    "no_pauses": Sentence("Nothing is paused.", "일시 중지된 작업이 없습니다."),
    "pause_sending": Sentence("Pause sending", "전송 일시 중지"),
    "pause_analysing": Sentence("Pause analysing", "분석 일시 중지"),
    "resume": Sentence("Resume", "다시 시작"),
    "alerts": Sentence("Alerts that stand", "현재 경보"),
    "no_alerts": Sentence("No alert stands.", "현재 경보가 없습니다."),
    "reconciliation": Sentence("Comparison with the PACS", "PACS와의 대조"),
    "never_reconciled": Sentence("Never done, or switched off.", "실행된 적이 없거나 꺼져 있습니다."),
    "reconciled": Sentence("Last done {time}.", "마지막 실행: {time}."),
    # --- when something is wrong
    "error": Sentence("That did not work", "처리할 수 없습니다"),
    "error_400": Sentence("The request could not be understood", "요청을 이해할 수 없습니다"),
    "error_403": Sentence("Your role may not do this", "이 작업을 할 권한이 없습니다"),
    "error_404": Sentence("Not found", "찾을 수 없습니다"),
    "error_409": Sentence("Not possible now", "지금은 할 수 없습니다"),
    "error_410": Sentence("Not kept any more", "더 이상 보관되지 않습니다"),
    "error_503": Sentence("Not available at this moment", "지금은 사용할 수 없습니다"),
    "bad_uid": Sentence("This is no Study Instance UID.", "Study Instance UID가 아닙니다."),
    "no_picture": Sentence("This picture is not kept.", "이 영상은 보관되어 있지 않습니다."),
    "database_away_page": Sentence(
        "The database does not answer. Try again in a few seconds.",
        "데이터베이스가 응답하지 않습니다. 잠시 후 다시 시도하십시오.",
    ),
    "bad_choice": Sentence("One of the choices cannot be read; choose again.", "선택 항목을 읽을 수 없습니다. 다시 선택하십시오."),
    "bad_form": Sentence("This form cannot be read; open the page again.", "양식을 읽을 수 없습니다. 페이지를 다시 여십시오."),
    "back_to_studies": Sentence("Back to the studies", "검사 목록으로"),
    "try_again": Sentence("Try again", "다시 시도"),
}


@dataclass(frozen=True)
class Catalogue:
    """The sentences of one language, "en" or "ko"."""

    language: str

    def __call__(self, key: str, **values: object) -> str:
        """The sentence `key` with `values` filled in. Raises KeyError when there is none, or when a value is missing."""
        sentence = SENTENCES[key]
        return (sentence.ko if self.language == "ko" else sentence.en).format(**values)

    @property
    def words(self) -> wording.Wording:
        """What results say in this language."""
        return wording.in_language(self.language)


LANGUAGES = tuple(wording.LANGUAGES)


def preferred(accept_language: str, otherwise: str) -> str:
    """The language of ours that an Accept-Language header (RFC 9110 12.5.4) likes best; `otherwise` when it names none of them."""
    liked: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept_language.split(",")[:32]):
        tag, _, rest = part.partition(";")
        name = tag.strip().lower().split("-")[0]
        try:
            weight = float(rest.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if name in LANGUAGES and weight > 0:
            liked.append((-weight, place, name))
    return min(liked)[2] if liked else otherwise
