"""Texts that are not English are refused by name; English in every dress is read."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import pytest

from kvlp.errors import ConfigError, DataError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.linking.language import check_language, language_of

#: our own reports, written for this test
FOREIGN = {
    "Spanish": [
        "Radiografía de tórax en proyección PA. No se observa derrame pleural ni neumotórax. Silueta cardiaca normal.",
        "Pequeño derrame pleural izquierdo con atelectasia en la base pulmonar.",
        "Infiltrado en el lóbulo inferior derecho compatible con neumonía, sin cambios respecto al estudio previo.",
        "Cardiomegalia con signos de congestión pulmonar y derrame pleural bilateral.",
        "senos costofrenicos libres . silueta cardiaca de tamaño normal . no se observan lesiones en los pulmones .",
        "Aumento del tamaño de la silueta cardiaca, sin otros hallazgos de interés.",
        "El tubo endotraqueal está en buena posición y la sonda nasogástrica llega al estómago.",
        "Nódulo calcificado en el vértice derecho, estable con respecto a la radiografía anterior.",
        "cambi cronic . pinzamient sen costofren izquierd . sin cambi respect a rx previ . no hallazg agud",  # stems
        "derram pleural bilateral . aument densid bas izquierd en relacion con atelectasi .",
        "IMPRESIÓN: SIN EVIDENCIA DE PATOLOGÍA AGUDA EN EL TÓRAX. NO HAY DERRAME NI CONSOLIDACIÓN.",
    ],
    "German": [
        "Kein Nachweis eines Pleuraergusses oder eines Pneumothorax. Das Herz ist normal groß.",
        "Kleiner Pleuraerguss links mit angrenzender Belüftungsstörung im linken Unterlappen.",
        "Herzschatten nicht verbreitert, die Lunge ist beidseits frei belüftet, kein Infiltrat.",
        "Im Vergleich zur Voraufnahme ist der Erguss rechts deutlich kleiner und das Infiltrat nicht mehr zu sehen.",
        "Der Tubus liegt mit der Spitze 4 cm oberhalb der Carina, der ZVK in der Vena cava superior.",
        "Verdacht auf eine Pneumonie im rechten Mittellappen, eine Kontrolle nach Therapie wird empfohlen.",
        "Zeichen der pulmonalvenösen Stauung mit Ergüssen auf beiden Seiten und einem vergrößerten Herz.",
        "BEURTEILUNG: KEIN HINWEIS AUF EINE FRISCHE FRAKTUR. DIE WEICHTEILE SIND UNAUFFÄLLIG.",
    ],
    "French": [
        "Pas d'épanchement pleural ni de pneumothorax. La silhouette cardiaque est de taille normale.",
        "Opacité du lobe inférieur droit en faveur d'une pneumonie, avec un petit épanchement.",
        "Les poumons sont bien aérés et le médiastin est en place.",
        "Cardiomégalie avec des signes de surcharge et un épanchement bilatéral des bases.",
        "La sonde d'intubation est en place et le cathéter se projette sur la veine cave supérieure.",
        "Comparé au cliché du mois dernier, le nodule de l'apex gauche est stable.",
        "Fracture ancienne de la clavicule droite sans lésion pulmonaire visible sur ce cliché.",
        "CONCLUSION : PAS DE FOYER NI D'ÉPANCHEMENT DANS LES DEUX CHAMPS PULMONAIRES.",
    ],
    "Italian": [
        "Non si osservano versamento pleurico né pneumotorace. L'ombra cardiaca è nei limiti.",
        "Addensamento del lobo inferiore destro con piccolo versamento, da controllare dopo la terapia.",
        "Il catetere venoso è in sede e la punta si proietta sulla vena cava superiore.",
    ],
    "Portuguese": [
        "Não há derrame pleural nem pneumotórax. A silhueta cardíaca está dentro dos limites da normalidade.",
        "Opacidade no lobo inferior direito, sugestiva de pneumonia, com pequeno derrame à direita.",
        "O tubo está em boa posição e os pulmões não mostram sinais de congestão.",
    ],
    "Dutch": [
        "Geen aanwijzingen voor pleuravocht of een pneumothorax. Het hart is niet vergroot.",
        "Consolidatie in de rechter onderkwab, verdacht voor een pneumonie, met wat pleuravocht rechts.",
        "De tube ligt op de goede plaats en de lijn eindigt in de vena cava superior.",
    ],
    "Polish": [
        "Nie stwierdza się płynu w jamach opłucnej. Sylwetka serca jest w granicach normy.",
        "Zagęszczenia w dolnym polu prawego płuca, do kontroli po leczeniu, bez cech odmy.",
        "Stan po sternotomii, cewnik w żyle głównej, poza tym zmian nie widać na zdjęciu.",
    ],
    "Chinese": [
        "双肺纹理清晰，未见明显实变影，心影大小正常，肋膈角锐利。",
        "右下肺见斑片状密度增高影，考虑肺炎，建议治疗后复查。",
        "左侧少量胸腔积液，较前片吸收好转，余无明显变化。",
    ],
    "Japanese": [
        "両側肺野に明らかな浸潤影は認めません。心拡大はなく、胸水も見られません。",
        "右下肺野に浸潤影を認め、肺炎が疑われます。経過観察をお願いします。",
        "左に少量の胸水があります。前回と比べて改善しています。",
    ],
    "Russian": [
        "Очаговых и инфильтративных изменений в лёгких не выявлено. Сердце не расширено.",
        "Справа в нижней доле участок затемнения, вероятно пневмония, плевральные синусы свободны.",
        "Небольшой выпот в левой плевральной полости, без динамики.",
    ],
    "Arabic": [
        "لا يوجد انصباب جنبي أو استرواح الصدر، وحجم القلب ضمن الحدود الطبيعية.",
        "عتامة في الفص السفلي الأيمن تتوافق مع التهاب رئوي.",
        "انصباب جنبي بسيط في الجهة اليسرى دون تغير عن الصورة السابقة.",
    ],
}
ENGLISH = [
    "",
    "PTX",
    "NO ACUTE DISEASE. HEART SIZE NORMAL. LUNGS CLEAR.",
    "Cardiomegaly. Effusion. Atelectasis. Pneumothorax. Edema. Nodule. Granuloma. Scoliosis. Kyphosis. Fracture.",
    "situs inversus, pectus excavatum, vena cava superior, arteria lusoria, sinus phrenicocostalis, lobus venae azygos",
    "XXXX XXXX no XXXX of effusion. XXXX is XXXX. The XXXX in XXXX, a XXXX was XXXX since XXXX XXXX.",
    "ap portable chest 1 view et tube 3 cm above carina ng tube in stomach rij line in svc",
    "Patient from El Paso, seen by Dr. de la Cruz and Dr. Van der Berg at Los Angeles, status post CABG.",
    "Kerley B lines, peribronchial cuffing, bat wing oedema; haemothorax; tumour; café au lait spots; naïve T cells",
    "Derrame pleural.",  # too short to tell
    "α-1 antitrypsin, β blocker, 5 µm nodule → stable ≥ 2 years",
    "Lung/Hypoinflation;Opacity/lung/base/left;Markings/bronchovascular;Cicatrix/lung/upper lobe/right/round/small",
    "En face view, a la Roentgen: lines in situ, no change de novo.",
]


@pytest.mark.parametrize(("language", "text"), [(name, t) for name, texts in FOREIGN.items() for t in texts])
def test_other_languages_are_named(language: str, text: str) -> None:
    assert (language_of(text) or "").startswith(language)


def test_accents_may_be_characters_of_their_own() -> None:
    text = unicodedata.normalize("NFD", "épanchement à gauche, élargissement du médiastin et opacité des deux côtés")
    assert language_of(text) == "French"


def test_there_are_enough_examples() -> None:
    assert all(len(texts) >= (8 if name in ("Spanish", "German", "French") else 3) for name, texts in FOREIGN.items())


@pytest.mark.parametrize("text", ENGLISH)
def test_english_and_latin_terms_are_read(text: str) -> None:
    assert language_of(text) is None
    check_language(text)


def test_the_linker_refuses_by_name_and_reads_if_told_to() -> None:
    graph = KnowledgeGraph.load("chest")
    german = FOREIGN["German"][0]
    with pytest.raises(DataError, match="expected English report text, this looks like German; translate it") as error:
        EntityLinker(graph)(german)
    assert "Pleuraerguss" not in str(error.value)
    assert [m.concept for m in EntityLinker(graph, language=None)(german)] == ["pneumothorax"]
    with pytest.raises(DataError, match=r"text 2: .* looks like Chinese"):
        EntityLinker(graph).link_many(["No effusion.", FOREIGN["Chinese"][0]])
    with pytest.raises(ConfigError, match="expected language 'en' or None, got 'de'"):
        EntityLinker(graph, language="de")


def test_only_the_beginning_is_looked_at() -> None:
    assert language_of("No effusion is seen in the left lung. " * 60 + FOREIGN["Spanish"][0] * 50) is None


def test_real_reports_are_read(kvlp_data: Path) -> None:
    file = kvlp_data / "reports" / "iu_xray_reports.csv"
    if not file.is_file():
        pytest.skip(f"no {file.name} in the folder of real data")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    texts = [row[name] for row in rows for name in ("indication", "findings", "impression", "MeSH")]
    texts += [f"{row['findings']} {row['impression']}".upper() for row in rows]
    assert len(rows) == 2888
    assert [n for n, text in enumerate(texts) if language_of(text)] == []


def test_of_real_captions_only_the_french_ones_are_refused(kvlp_data: Path) -> None:
    file = kvlp_data / "reports" / "roco_chest_captions.csv"
    if not file.is_file():
        pytest.skip(f"no {file.name} in the folder of real data")
    with file.open(encoding="utf-8", newline="") as lines:
        named = [language_of(row["caption"]) for row in csv.DictReader(lines)]
    assert [n for n in named if n] == ["French"] * 4
