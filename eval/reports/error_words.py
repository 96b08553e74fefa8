"""The words and closed forms of sentences by which errors are planted: what is denied, claimed, sided or graded."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = [
    "ADDED",
    "CLAIM",
    "DEGREE",
    "DEGREES",
    "DENIAL",
    "ENLARGED",
    "FIXED_SIDE",
    "HEART",
    "ITEM",
    "OPENS",
    "OTHER",
    "SIDE",
]

#: words that may stand between degree, side and a finding's name without changing what it is
PLAIN = (
    "left|right|bilateral|basilar|bibasilar|basal|apical|focal|patchy|streaky|linear|dense|diffuse|residual|new|stable|"
    "chronic|acute|subtle|left-sided|right-sided|lower|upper|lobe|lung|base|zone|mid|retrocardiac|perihilar|pulmonary|"
    "definite|visible|large|small|mild|moderate|severe|tiny|trace|minimal|slight|marked"
)
DENIAL = re.compile(
    r"(?P<lead>(?:There (?:is|are|was|were) )?no(?: (?:radiographic )?evidence (?:of|for)| evidence of an?| sign of)?) "
    r"(?P<items>[^.;:()]+?)"
    r"(?P<tail>(?: (?:is|are|was|were))?"
    r"(?: (?:seen|identified|present|noted|demonstrated|visualized|detected|evident))?)\.",
    re.IGNORECASE,
)
ITEM = re.compile(r"(?:,? (?:or|and|nor) |, )")
OPENS = re.compile(r"\A(?:(?:an?|any|focal|acute|definite|visible|overt|obvious) )*", re.IGNORECASE)
CLAIM = re.compile(
    rf"(?P<lead>There (?:is|are) )?(?P<before>(?:(?:an?|the|{PLAIN}) )*)(?P<term>@)"
    r"(?P<place>(?: (?:in|at|of|on|along|over|throughout|involving) [^.,;:()]+?)?)"
    r"(?: (?:is|are))?(?: (?:present|seen|noted|identified|demonstrated|visible))?\.",
    re.IGNORECASE,
)
HEART = re.compile(
    r"(?P<subject>(?:The )?(?:heart size|heart|cardiac silhouette|cardiac size)) (?P<verb>is) "
    r"(?P<what>(?:(?:mildly|moderately|severely|markedly) )?enlarged|(?:within normal limits|normal)(?: in size)?)\.",
    re.IGNORECASE,
)
SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
OTHER = {"left": "right", "right": "left"}
#: with one of these the side belongs to a name, or has no counterpart
FIXED_SIDE = re.compile(
    r"bilateral|both|middle lobe|lingula|minor fissure|ventric|atri|aort|heart|cardiac|hand|handed|mainstem|"
    r"paratracheal|lateral view|side down|to the (?:left|right)|toward|arch|upper quadrant|PICC|line|catheter|port|"
    r"device|pacemaker",
    re.IGNORECASE,
)
DEGREES = {
    "tiny": "large", "trace": "large", "small": "large", "minimal": "severe", "mild": "severe", "slight": "severe",
    "moderate": "minimal", "large": "tiny", "severe": "minimal", "marked": "minimal", "mildly": "severely",
    "minimally": "severely", "slightly": "severely", "moderately": "minimally", "severely": "minimally",
    "markedly": "minimally",
}  # fmt: skip
DEGREE = re.compile(rf"\b({'|'.join(DEGREES)}) (?:(?:{PLAIN}) )*\Z", re.IGNORECASE)
ENLARGED = re.compile(r"\b(mildly|moderately|severely|markedly|slightly|minimally) enlarged\b", re.IGNORECASE)
#: what is added: sentence, and the words of which none may stand in the report
ADDED: Mapping[str, str] = {
    "There is a small right pneumothorax.": r"pneumothora|pleural air",
    "There is a moderate left pleural effusion.": r"effusion|pleural fluid|costophrenic|hydro|pleural space",
    "There is consolidation in the right upper lobe.": r"consolidat|airspace|air space|pneumonia|infiltrat|opaci",
    "There is moderate cardiomegaly.": r"cardiomegaly|enlarged|enlargement|heart|cardiac|cardio",
    "There is mild pulmonary edema.": r"edema|congestion|vascular|failure|chf",
    "There is a nodule in the left upper lobe.": r"nodul|mass|lesion|granuloma",
    "There is a large hiatal hernia.": r"hernia",
    "There is atelectasis at the left lung base.": r"atelecta|volume loss|collapse|opaci|scar",
    "There is a displaced right rib fracture.": r"fracture|rib|bone|bony|osseous|skelet",
    "There is left pleural thickening.": r"pleura|thicken|effusion",
}
