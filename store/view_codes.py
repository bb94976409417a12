"""The Standard's tables for views: CID 4014 (View for Mammography), CID 4015 (View Modifier for Mammography), and the sides by code.

PS3.16 CID 4014, CID 4015, CID 244 (Laterality), and CID 4013 (Mammography Anatomic Region) as far as it names a side.
"""

from __future__ import annotations

#: CID 4014: label -> codes in SCT, codes in SRT. Only CC and MLO fill a slot. XCC is retired.
CID_4014: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "CC": (("399162004",), ("R-10242",)),
    "MLO": (("399368009",), ("R-10226",)),
    "ML": (("399260004",), ("R-10224",)),
    "LM": (("399352003",), ("R-10228",)),
    "LMO": (("399099002",), ("R-10230",)),
    "FB": (("399196006",), ("R-10244",)),
    "SIO": (("399188001",), ("R-102D0",)),
    "ISO": (("441555000",), ("R-40AAA",)),
    "XCCL": (("399192008",), ("R-1024A", "Y-X1770")),
    "XCCM": (("399101009",), ("R-1024B", "Y-X1771")),
    "XCC": (("399265009",), ("R-102CF",)),
    "SPECIMEN": (("127457009",), ("G-8310",)),
}

#: CID 4015: label -> code in SCT, code in SRT, and the word for it.
CID_4015: dict[str, tuple[str, str, str]] = {
    "ID": ("399209000", "R-102D5", "implant displaced"),
    "M": ("399163009", "R-102D6", "magnification"),
    "S": ("399055006", "R-102D7", "spot compression"),
    "CV": ("399161006", "R-102D2", "cleavage"),
    "AT": ("399011000", "R-102D1", "axillary tail"),
    "RL": ("399197002", "R-102D3", "rolled lateral"),
    "RM": ("399226006", "R-102D4", "rolled medial"),
    "RI": ("414493004", "R-102CA", "rolled inferior"),
    "RS": ("415670009", "R-102C9", "rolled superior"),
    "TAN": ("399110001", "R-102C2", "tangential"),
    "NP": ("442581004", "R-40AB3", "nipple in profile"),
    "AC": ("441752004", "P2-00161", "anterior compression"),
    "IMF": ("442593008", "R-40ABE", "infra-mammary fold"),
    "AX": ("442580003", "R-40AB2", "axillary tissue"),
}

#: The views of the standard exam; no other fills a slot.
SLOT_VIEWS = frozenset({"CC", "MLO"})

#: Modifiers with which an image may still fill a slot; all others show a part or another projection.
SLOT_MODIFIERS = frozenset({"ID", "NP", "AC", "IMF"})

#: What View Position (0018,5101) may say: the labels of the views.
VIEW_POSITIONS = frozenset(CID_4014) - {"SPECIMEN"}

#: (designator, value) -> label; SRT stands for SNM3 and 99SDM too.
VIEW_BY_CODE = {("SCT", code): label for label, (sct, _) in CID_4014.items() for code in sct} | {
    ("SRT", code): label for label, (_, srt) in CID_4014.items() for code in srt
}
MODIFIER_BY_CODE = {("SCT", sct): label for label, (sct, _, _) in CID_4015.items()} | {
    ("SRT", srt): label for label, (_, srt, _) in CID_4015.items()
}

#: Exact meanings of CID 4014, letters only, for items whose value or designator is missing.
VIEW_BY_MEANING = {
    "CRANIOCAUDAL": "CC",
    "MEDIOLATERALOBLIQUE": "MLO",
    "MEDIOLATERAL": "ML",
    "MEDIALLATERAL": "ML",
    "LATEROMEDIAL": "LM",
    "LATEROMEDIALOBLIQUE": "LMO",
    "CAUDOCRANIAL": "FB",
    "CAUDOCRANIALFROMBELOW": "FB",
    "SUPEROLATERALTOINFEROMEDIALOBLIQUE": "SIO",
    "INFEROMEDIALTOSUPEROLATERALOBLIQUE": "ISO",
    "CRANIOCAUDALEXAGGERATED": "XCC",
    "CRANIOCAUDALEXAGGERATEDLATERALLY": "XCCL",
    "CRANIOCAUDALEXAGGERATEDMEDIALLY": "XCCM",
    "TISSUESPECIMENFROMBREAST": "SPECIMEN",
}

#: Anatomic Region (0008,2218) items and modifiers (0008,2220) that name a side: (designator, value) -> side.
SIDE_BY_CODE = {
    ("SCT", "80248007"): "L",
    ("SRT", "T-04030"): "L",
    ("SCT", "73056007"): "R",
    ("SRT", "T-04020"): "R",
    ("SCT", "7771000"): "L",
    ("SRT", "G-A101"): "L",
    ("SCT", "24028007"): "R",
    ("SRT", "G-A100"): "R",
}
