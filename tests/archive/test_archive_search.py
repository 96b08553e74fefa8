"""What a search means: words, concepts present, absent and without, filters, exactness, reasons."""

from __future__ import annotations

import numpy as np
import pytest
from archive_planted import DIM, PlantedModel, grey_of, write_images

from kvlp.archive import Archive
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ArchiveError, ImageError, KnowledgeError, ShapeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.prompts import Prompts
from kvlp.typing import Assertion

EFFUSION, PNEUMOTHORAX, MASS = range(3)

REPORTS = {
    0: "INDICATION: Pneumothorax? FINDINGS: Large pleural effusion. No pneumothorax.",
    1: "FINDINGS: Large pleural effusion. There is a pneumothorax.",
    2: "FINDINGS: No pleural effusion. No pneumothorax.",
    3: "FINDINGS: Possible pleural effusion.",
    4: "FINDINGS: There is a loculated effusion.",
    5: "FINDINGS: No abnormal fluid collection.",
    6: "",
    7: "",
    8: "FINDINGS: The heart is normal.",
}


@pytest.fixture(scope="module")
def graph():
    finding = ("finding",)
    return KnowledgeGraph(
        [
            Concept("fluid_collection", "fluid collection", ("abnormal fluid collection",), semantic_types=finding),
            Concept("pleural_effusion", "pleural effusion", ("pleural fluid",), semantic_types=finding),
            Concept("loculated_effusion", "loculated effusion", semantic_types=finding),
            Concept("pneumothorax", "pneumothorax", semantic_types=finding),
            Concept("mass", "mass", semantic_types=finding),
        ],
        [
            Relation("pleural_effusion", "is_a", "fluid_collection"),
            Relation("loculated_effusion", "is_a", "pleural_effusion"),
        ],
        name="four",
    )


def axis(number, sign=1.0):
    return sign * np.eye(DIM)[number]


@pytest.fixture
def model(graph):
    """Axis 0 is effusion, 1 pneumothorax, 2 mass; "no X" points the other way."""
    prompts, texts = Prompts(graph), {}
    for number, name in enumerate(("pleural effusion", "pneumothorax", "mass")):
        for assertion, sign in ((Assertion.PRESENT, 1.0), (Assertion.ABSENT, -1.0)):
            texts |= dict.fromkeys(prompts.sentences(name, assertion), axis(number, sign))
    planted = PlantedModel(texts=texts)
    rng = np.random.default_rng(0)
    signs = {0: (1, -1), 1: (1, 1), 2: (-1, -1), 3: (0.2, 0), 4: (0.9, 0), 6: (0.8, -0.5), 7: (0.7, 0.6)}
    for number in REPORTS:
        noise = 0.01 * rng.standard_normal(DIM)
        noise[:2] += signs.get(number, (0, 0))
        noise[10] += 1
        planted.plant(grey_of(number), noise / np.linalg.norm(noise))
    return planted


@pytest.fixture
def archive(tmp_path, create, model, graph):
    write_images(tmp_path / "m", list(REPORTS))
    made = create(graph=graph)
    made.add(Manifest([Record(f"r{n}", f"{n:04d}.png", text=text) for n, text in REPORTS.items()], tmp_path / "m"))
    return made


def records(hits):
    return {int(h.why["record"][1:]) for h in hits}


def test_a_concept_is_asked_for_by_all_its_names(archive, model, graph):
    scores = [h.score for h in archive.search("pleural effusion", k=20)]
    assert scores == [h.score for h in archive.search("Pleural Fluid", k=20)]
    expected = Prompts(graph).sentences("pleural effusion", Assertion.PRESENT)
    assert len(expected) > 2
    assert archive.search("pleural effusion", k=1)[0].why["record"] == "r4"


def test_without_a_graph_words_are_taken_as_they_are(tmp_path, create, model):
    archive = create(model=model)
    archive.add(write_images(tmp_path / "m", range(9)))
    by_text = [(h.id, h.score) for h in archive.search("what they say")]
    query = model.encode_text(["what they say"])[0]
    assert by_text == [(h.id, h.score) for h in archive.search(embedding=query)]
    assert len(archive.search("mass", without=["pneumothorax"])) < 9


def test_present_absent_and_without_follow_the_reports(archive):
    # 6 and 7 have no report: there the model's prompts decide
    assert records(archive.search("mass", present=["pleural effusion"], k=20)) == {0, 1, 4, 6, 7}
    assert records(archive.search("mass", absent=["pleural effusion"], k=20)) == {2, 5}
    assert records(archive.search("mass", without=["pleural effusion"], k=20)) == {2, 5, 8}
    assert records(archive.search("mass", present=["pleural effusion"], absent=["pneumothorax"], k=20)) == {0, 6}
    assert records(archive.search("mass", without=["pneumothorax"], k=20)) == {0, 2, 3, 4, 5, 6, 8}
    assert records(archive.search(present="loculated_effusion", k=20)) >= {4}


def test_the_indication_labels_nothing(archive):
    (hit,) = archive.search("mass", where="record = 'r0'", without=["pneumothorax"])
    (told,) = [one for one in hit.why["matched"] if one["concept"] == "pneumothorax"]
    assert (told["found"], told["by"]) == ("absent", "report")


def test_what_is_said_most_strongly_counts(archive):
    said = ("Left pleural effusion.", "Possible pleural effusion.", "No right pleural effusion.")
    for sentences in (said, said[::-1], (said[1], said[0], said[2])):
        assert archive._mentions_of(" ".join(sentences))["pleural_effusion"] == "present"
        assert archive._mentions_of(f"{said[2]} {said[1]}")["pleural_effusion"] == "uncertain"
        assert archive._mentions_of(f"{said[1]} {said[2]}")["pleural_effusion"] == "uncertain"


def test_without_leans_away_and_stays_one_inner_product(archive, model):
    hits = archive.search("pleural effusion", without=["pneumothorax"], k=20)
    query = axis(EFFUSION) - (axis(PNEUMOTHORAX) - axis(PNEUMOTHORAX, -1))
    for hit in hits:
        vector = model.image_vector(grey_of(int(hit.why["record"][1:])))
        assert hit.score == pytest.approx(float(vector @ query), abs=1e-6)
        assert hit.why["cosine"] == pytest.approx(float(vector[EFFUSION]), abs=1e-6)
    assert hits[0].why["record"] == "r0"


def test_present_alone_is_a_query(archive):
    hits = archive.search(present=["pneumothorax"])
    assert hits[0].why["record"] == "r1"
    assert hits[0].why["cosine"] is None


def test_absent_alone_ranks_by_no(archive):
    hits = archive.search(absent=["pneumothorax"])
    assert records(hits) == {0, 2, 6}
    assert hits[0].score > hits[-1].score > 0


def test_why_names_matched_and_missed(archive):
    by_record = {h.why["record"]: h for h in archive.search("pleural effusion", k=20)}
    assert by_record["r0"].why["matched"] == [
        {"concept": "pleural_effusion", "asked": "present", "found": "present", "by": "report"}
    ]
    assert by_record["r2"].why["missed"][0]["found"] == "absent"
    assert by_record["r3"].why["missed"][0]["found"] == "uncertain"
    assert by_record["r8"].why["missed"][0]["found"] == "not mentioned"
    assert by_record["r4"].why["matched"][0]["found"] == "present"  # a loculated effusion is one
    assert by_record["r5"].why["missed"][0]["found"] == "absent"  # no fluid collection, so no effusion
    assert by_record["r6"].why["matched"] == by_record["r6"].why["missed"] == []
    (told,) = archive.search(present=["pleural effusion"], where="record = 'r6'")[0].why["matched"]
    assert (told["by"], told["found"]) == ("model", "present")
    assert told["margin"] > 0


def test_an_unknown_concept_is_refused_with_near_names(archive):
    with pytest.raises(KnowledgeError, match="pneumothorax"):
        archive.search("mass", without=["pneumothoraks"])


def test_where_narrows_down(archive):
    assert records(archive.search("mass", where="record in ('r1', 'r2')")) == {1, 2}
    assert records(archive.search("mass", where="report ~ 'loculated'")) == {4}
    assert archive.search("mass", where="view = 'XX'") == []
    assert archive.search(where="record = 'r1'")[0].score == 0


def test_several_kinds_of_query_are_averaged(archive, model):
    hits = archive.search("pleural effusion", embedding=axis(PNEUMOTHORAX, 3.0))
    assert hits[0].why["record"] == "r1"
    vector = model.image_vector(grey_of(1))
    assert hits[0].score == pytest.approx((vector[EFFUSION] + vector[PNEUMOTHORAX]) / np.sqrt(2), abs=1e-6)


def test_arrays_and_files_are_images(tmp_path, archive):
    by_file = archive.search(image=tmp_path / "m" / "0003.png")
    assert [h.score for h in by_file] == [h.score for h in archive.search(image=grey_of(3))]


@pytest.mark.parametrize(
    "asked, error, message",
    [
        ({}, ArchiveError, "nothing to search for"),
        ({"text": "  "}, ArchiveError, "empty"),
        ({"text": "x", "k": 0}, ArchiveError, "k must be at least 1"),
        ({"text": "x", "without": [" "]}, ArchiveError, "empty concept"),
        ({"embedding": [1.0, 2.0]}, ShapeError, r"\(N, 16\)"),
        ({"embedding": [np.nan] * 16}, ArchiveError, "NaN"),
        ({"image": "nowhere.png"}, ImageError, "nowhere.png"),
    ],
)
def test_bad_questions_get_one_clear_line(archive, asked, error, message):
    with pytest.raises(error, match=message) as caught:
        archive.search(**asked)
    assert "\n" not in str(caught.value)


def test_search_is_brute_force_over_what_is_stored(tmp_path, create):
    model = PlantedModel()
    archive = create(model=model)
    archive.add(write_images(tmp_path / "m", range(60)))
    stored = {item.id: np.frombuffer(item.vector, "<f4").astype(float) for item in archive._store.items()}
    rng = np.random.default_rng(1)
    for _ in range(20):
        query = rng.standard_normal(DIM)
        unit = (query / np.linalg.norm(query)).astype(np.float32).astype(float)
        unit /= np.linalg.norm(unit)
        expected = sorted(((-float((v * unit).sum()), key) for key, v in stored.items()))[:9]
        assert [(h.id, h.score) for h in archive.search(embedding=query, k=9)] == [(key, -s) for s, key in expected]


def test_the_graph_is_kept_and_reopened(tmp_path, archive, model):
    archive.close()
    with Archive.open(tmp_path / "archive", model) as again:
        assert records(again.search("mass", absent=["pleural effusion"], k=20)) == {2, 5}
        assert again.notes == []


def test_another_version_of_the_graph_is_said(tmp_path, archive, model, graph):
    other = KnowledgeGraph(
        [*graph.concepts, Concept("cyst", "cyst", semantic_types=("finding",))], graph.relations, name="five"
    )
    with Archive.open(tmp_path / "archive", model, graph=other) as again:
        again.search("mass", absent=["pneumothorax"])
        assert any("another version" in note for note in again.notes)


def test_a_report_that_cannot_be_read_is_named_and_its_image_is_there(tmp_path, create, model, graph):
    write_images(tmp_path / "m", [0, 1])
    texts = ("Kein Nachweis einer Pneumonie, kleiner Pleuraerguss links und rechts.", "No pneumothorax.")
    rows = [Record(f"r{n}", f"{n:04d}.png", text=text) for n, text in enumerate(texts)]
    made = create(graph=graph)
    report = made.add(Manifest(rows, tmp_path / "m"))
    assert (report.added, len(made)) == (2, 2)
    (flagged,) = report.flagged
    assert flagged.path.endswith("0000.png")
    assert "its report is not read: expected English report text, this looks like German" in flagged.reason
    assert "Pleuraerguss" not in flagged.reason
