"""Benchmarks of questions: readers, comparison of answers, candidates, the question-only baseline, the command."""

import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from kvlp.cli import main
from kvlp.datasets.readers import get_reader
from kvlp.errors import DataError
from kvlp.eval.benchmarks import load_card
from kvlp.eval.benchmarks.answers import candidates, exact, normalised, token_f1
from kvlp.eval.benchmarks.run_vqa import read_predictions, run_vqa
from kvlp.eval.benchmarks.statements import Statements
from kvlp.eval.benchmarks.vqa import Answered, Question, answer_rows, majority_answers, questions_of
from kvlp.eval.evaluate import EvalOptions
from kvlp.eval.results import Provenance, read_results

QUICK = EvalOptions(resamples=10)


def picture(heart, fluid):
    """A picture that the planted model reads: pixel 0 cardiomegaly, pixel 1 pleural effusion."""
    pixels = np.random.default_rng(0).integers(30, 90, size=(24, 24), dtype=np.uint8)
    pixels[0, :3] = np.where([heart, fluid, False], 250, 5)
    return Image.fromarray(pixels)


def draw(path, heart=False, fluid=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(heart, fluid).save(path)


#: question, answer, closed, kind, heart, fluid
ASKED = [
    ("Is there cardiomegaly?", "Yes", True, "PRES", True, False),
    ("Is there cardiomegaly?", "no", True, "PRES", False, True),
    ("Is there a pleural effusion?", "Yes ", True, "PRES, ABN", False, True),
    ("Is there no pleural effusion?", "Yes", True, "PRES", True, False),
    ("What organ is shown?", "The lungs", False, "ORGAN", True, False),
]


def write_vqa_rad(root):
    rows = []
    for number, (question, answer, closed, kind, heart, fluid) in enumerate(ASKED):
        name = f"synpic{number}.png"
        draw(root / "VQA_RAD Image Folder" / name, heart, fluid)
        row = {
            "qid": number, "image_name": name, "image_organ": "CHEST", "question": question, "answer": answer,
            "answer_type": "CLOSED " if closed else "OPEN", "question_type": kind, "phrase_type": "test_freeform",
            "image_case_url": f"https://medpix/{number // 2}",
        }  # fmt: skip
        rows += [row, {**row, "qid": 100 + number, "phrase_type": "freeform", "answer": "No" if closed else "Lungs"}]
    root.joinpath("VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    return root


def write_slake(root):
    rows = []
    for number, (question, answer, closed, kind, heart, fluid) in enumerate(ASKED):
        draw(root / "imgs" / f"xmlab{number}" / "source.jpg", heart, fluid)
        row = {
            "img_id": number, "img_name": f"xmlab{number}/source.jpg", "question": question, "answer": answer.strip(),
            "q_lang": "en", "location": "Lung", "modality": "X-Ray", "answer_type": "CLOSED" if closed else "OPEN",
            "base_type": "vqa", "content_type": kind, "triple": ["vhead", "_", "_"], "qid": number,
        }  # fmt: skip
        rows += [row, {**row, "qid": 100 + number, "q_lang": "zh", "question": "?"}]
    root.joinpath("test.json").write_text(json.dumps(rows))
    return root


def write_pathvqa(root):
    """Two questions about one picture, and one about another, as the Parquet copies hold them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def data(heart, fluid):
        buffer = io.BytesIO()
        picture(heart, fluid).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    rows = [
        {"image": data(True, False), "question": "is there cardiomegaly?", "answer": "yes"},
        {"image": data(True, False), "question": "what is present?", "answer": "cardiovascular"},
        {"image": data(False, True), "question": "is there cardiomegaly?", "answer": "no"},
    ]
    (root / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "data" / "test-00000-of-00001.parquet")
    return root


LAYOUTS = {"pathvqa": write_pathvqa, "slake": write_slake, "vqa-rad": write_vqa_rad}


def test_answers_are_compared_without_case_punctuation_and_articles():
    assert normalised(" The Left-sided  lung's apex. ") == "left-sided lung's apex"
    assert exact("the Yes.", "yes") == 1
    assert exact("", "") == 0
    assert exact("left", "left lung") == 0
    # two of three words and two of two: precision 2/3, recall 1, F1 0.8
    assert token_f1("left lower lobe", "Lower lobe") == pytest.approx(0.8)
    assert token_f1("lobe lobe", "lobe") == pytest.approx(2 / 3)
    assert token_f1("heart", "lung") == token_f1("", "lung") == 0


def test_candidates_come_from_the_question_and_not_from_its_answer():
    pool = ["right", "left", "right side", "axial", "yes", "no"]
    assert candidates("Is the lesion on the right or the left?", pool) == ["right", "left"]
    assert candidates("Is it on the left or the right side?", pool) == ["left", "right side"]
    assert candidates("Is there fluid?", pool) == ("yes", "no")
    assert candidates("Is it wet or dry?", pool) == ("yes", "no")
    assert candidates("Which plane is it?", pool) == ["right", "left", "right side", "axial"]
    assert candidates("Which plane is it?", ["yes"]) == ("yes", "no")


def test_yes_and_no_become_prompts_of_the_concept_that_is_asked_for(chest_graph):
    say = Statements(chest_graph)
    yes, no = (say("Is there a pleural effusion?", answer) for answer in ("yes", "no"))
    assert "There is a pleural effusion." in yes
    assert "There is no pleural effusion." in no
    assert not set(yes) & set(no)
    assert set(say("Is there no pleural effusion?", "yes")) == set(no)
    assert say("Is there evidence of wxyz?", "no") == ["There is no wxyz."]
    assert say("Is there any wxyz?", "yes") == ["There is wxyz."]
    assert say("Are both lungs shown?", "no") == ["Are both lungs shown? no."]
    assert say("Which side?", "left") == ["Which side? left."]
    assert Statements(None)("Is there a pleural effusion?", "yes") == ["There is pleural effusion."]
    assert Statements(None)("Is there no pleural effusion?", "yes") == ["There is no pleural effusion."]
    assert Statements(None)("Is there no pleural effusion?", "no") == ["There is pleural effusion."]


def ask(id, words, answer, group, *, closed=True, kind="PRES"):
    return Question(id, words, answer, closed, (kind,), group)


def test_the_question_alone_is_answered_from_training_questions_or_from_other_images():
    train = [ask("a", "Is it big?", "yes", "x"), ask("b", "Is it big?", "Yes.", "y"), ask("c", "Is it red?", "no", "z")]
    train += [ask("d", "Is it blue?", "no", "z"), ask("e", "Is it new?", "no", "w")]
    asked = [
        ask("1", "is it BIG", "no", "x"),
        ask("2", "Is it green?", "yes", "y"),
        ask("3", "?", "no", "y", kind="SIZE"),
    ]
    assert majority_answers(asked, train).answers == {"1": "yes", "2": "no", "3": "no"}
    # without training questions an image never answers for itself: 1 sees only 2 and 3
    alone = [ask("1", "q", "yes", "x"), ask("2", "q", "no", "y"), ask("3", "q", "no", "z"), ask("4", "r", "yes", "x")]
    assert majority_answers(alone, []).answers == {"1": "no", "2": "no", "3": "no", "4": "no"}
    assert majority_answers([ask("1", "q", "yes", "x")], []).answers == {}


def test_figures_by_hand_and_paired_with_the_baseline():
    asked = [
        ask("1", "q", "yes", "x"),
        ask("2", "q", "no", "x"),
        ask("3", "q", "no", "y", kind="SIZE"),
        ask("4", "what", "left lobe", "y", closed=False, kind="POS"),
    ]
    ours = Answered("ours", {"1": "yes", "2": "yes", "3": "no", "4": "the left"})
    base = Answered("base", {"1": "no", "2": "no", "3": "no", "4": ""})
    rows = answer_rows(asked, ours, base, Provenance(seed=1), resamples=50)
    value = {(r.metric, r.target, r.setting): (r.value, r.n, r.n_groups) for r in rows}
    assert value["accuracy", "closed", "ours"] == (pytest.approx(2 / 3), 3, 2)
    assert value["accuracy", "closed", "base"] == (pytest.approx(2 / 3), 3, 2)
    assert value["accuracy_difference", "closed", "ours minus base"][0] == 0
    assert value["accuracy", "closed: PRES", "ours"] == (0.5, 2, 1)
    assert value["token_f1", "open", "ours"][0] == pytest.approx(2 / 3)
    assert value["exact_match", "open", "ours"][0] == 0
    assert value["token_f1_difference", "open", "ours minus base"][0] == pytest.approx(2 / 3)
    assert value["exact_match", "all", "ours"] == (0.5, 4, 2)
    only = answer_rows(asked, Answered("enc", ours.answers, "closed"), base, Provenance())
    assert {r.target for r in only} == {"closed", "closed: PRES", "closed: SIZE"}


def test_all_right_is_no_certainty_and_a_difference_of_nothing_stays_nothing():
    asked = [ask(str(n), "q", "yes", str(n // 2)) for n in range(20)]
    right = Answered("ours", dict.fromkeys(map(str, range(20)), "yes"))
    rows = answer_rows(asked, right, right, Provenance(), resamples=20)
    row = next(r for r in rows if (r.metric, r.target, r.setting) == ("accuracy", "closed", "ours"))
    # ten images: 0.025 ** (1 / 10)
    assert (row.value, row.low, row.high) == (1.0, pytest.approx(0.6915, abs=1e-4), 1.0)
    gap = next(r for r in rows if r.metric == "accuracy_difference")
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_benchmark_of_questions_runs(name, fakes, tmp_path, chest_graph):
    graph = chest_graph if name == "vqa-rad" else None  # without one, "Is there X?" still becomes a statement
    run = run_vqa(load_card(name), LAYOUTS[name](tmp_path), tmp_path / "out", fakes.Model(), graph, options=QUICK)
    value = {(r.metric, r.target, r.setting): r.value for r in run.rows}
    # every closed question is about what the planted model reads off the picture, the denied one included
    assert value["accuracy", "closed", "dual encoder"] == 1.0
    assert value["accuracy", "closed", "question only"] < 1.0
    assert run.facts["open"] == 1
    assert all(r.provenance.split == "test" for r in run.rows)


def test_readers_give_split_case_kind_and_form(tmp_path):
    manifest = get_reader("vqa-rad")(write_vqa_rad(tmp_path / "v"), tmp_path / "vo")
    assert [r.split for r in manifest] == ["test", "train"] * 5
    asked = questions_of(manifest.subset("test"))
    assert [(q.closed, q.kinds, q.group) for q in asked][2:] == [
        (True, ("PRES", "ABN"), "https://medpix/1"),
        (True, ("PRES",), "https://medpix/1"),
        (False, ("ORGAN",), "https://medpix/2"),
    ]
    manifest = get_reader("slake")(write_slake(tmp_path / "s"), tmp_path / "so")
    assert len(manifest) == 5
    assert (manifest[0].extra["modality"], manifest[0].patient_id) == ("X-Ray", "xmlab0")
    manifest = get_reader("pathvqa")(write_pathvqa(tmp_path / "p"), tmp_path / "po")
    assert manifest[0].image == manifest[1].image != manifest[2].image
    assert [r.extra["answer_type"] for r in manifest] == ["closed", "open", "closed"]
    assert len(list((tmp_path / "po" / "images").iterdir())) == 2


def test_a_pickle_is_refused_and_json_taken(tmp_path):
    (tmp_path / "qas").mkdir()
    (tmp_path / "qas" / "test_qa.pkl").write_bytes(pickle.dumps([{"image": "test_0001"}]))
    with pytest.raises(DataError, match=r"test_qa\.pkl; a pickle can run code and is not read: use the Parquet files"):
        get_reader("pathvqa")(tmp_path, tmp_path / "out")
    rows = [{"image": "test_0001", "question": "is it?", "answer": "yes"}]
    (tmp_path / "qas" / "test_qa.json").write_text(json.dumps(rows))
    draw(tmp_path / "images" / "test" / "test_0001.jpg")
    manifest = get_reader("pathvqa")(tmp_path, tmp_path / "out")
    assert manifest.path_of(manifest[0]).is_file()


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_wrong_layout_is_one_line(name, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"looked for .* in .*data and 2 levels below; it is empty$"):
        get_reader(name)(tmp_path / "data", tmp_path / "out")


def test_broken_tables_are_told(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test-0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a Parquet file"):
        get_reader("pathvqa")(tmp_path, tmp_path / "out")
    (tmp_path / "test.json").write_text('[{"qid": 1}]')
    with pytest.raises(DataError, match="entry 1 has no 'img_name'; its keys are qid"):
        get_reader("slake")(tmp_path, tmp_path / "out")


def test_predictions_are_checked_line_by_line(tmp_path):
    asked = [ask("1", "q", "yes", "x"), ask("2", "q", "no", "y")]
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": 1, "answer": "Yes"}\n\n{"id": "9", "answer": null}\n')
    read = read_predictions(path, asked)
    assert read.answers == {"1": "Yes"}
    assert read.notes == (
        "1 of 2 questions have no answer and count as wrong",
        "1 answers are to other questions and were passed over",
    )
    for text, message in (
        ('{"id": "1", "answer": "a"}\n{"id": 1, "answer": "b"}\n', "line 2: the id '1' stands twice"),
        ('{"id": "1"}\n', 'line 1: expected {"id": ..., "answer": ...}'),
        ("yes\n", "line 1: expected"),
        ('{"id": "7", "answer": "a"}\n', "no id is of the 2 questions; ids are such as '1'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            read_predictions(path, asked)
        assert message in str(caught.value)


def run_cli(*args):
    try:
        main([str(a) for a in args])
    except SystemExit as done:
        return done.code or 0
    return 0


def test_the_command_with_answers_of_another_model(tmp_path, capsys):
    data, out = write_vqa_rad(tmp_path / "d"), tmp_path / "out"
    answers = tmp_path / "answers.jsonl"
    lines = [{"id": n, "answer": a} for n, a in enumerate(("yes", "no", "yes", "no", "lungs"))]
    answers.write_text("\n".join(map(json.dumps, lines)))
    args = [
        "eval",
        "vqa-rad",
        "--data",
        data,
        "--out",
        out,
        "--predictions",
        answers,
        "--graph",
        "none",
        "--resamples",
        9,
    ]
    assert run_cli(*args, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row.to_dict() for row in read_results(out / "results.jsonl")] == document["rows"]
    value = {(r["metric"], r["target"], r["setting"]): r["value"] for r in document["rows"]}
    assert value["accuracy", "closed", "predictions"] == 0.75
    assert value["accuracy", "closed", "question only"] == 0.25  # training says "No" to everything
    assert value["exact_match", "open", "predictions"] == 1.0
    assert document["benchmark"]["whole"] is False
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "question only" in page
    assert "451" in page
    assert run_cli(*args) == 0
    said = capsys.readouterr()
    assert "predictions minus question only" in said.out
    assert "not the whole benchmark: 5 of 5 listed were there; the whole benchmark has 451" in said.err


def test_real_questions_go_all_the_way(kvlp_data, tmp_path, capsys):
    source = kvlp_data / "vqa"
    if not (source / "train.json").exists():
        pytest.skip("no vqa")
    raw = json.loads((source / "train.json").read_text())
    perfect, out = tmp_path / "perfect.jsonl", tmp_path / "out"
    perfect.write_text("\n".join(json.dumps({"id": r["qid"], "answer": r["answer"]}) for r in raw))
    args = ["--data", source, "--out", out, "--predictions", perfect, "--split", "train", "--resamples", 2]
    assert run_cli("eval", "vqa-rad", *args, "--graph", "none", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    closed = sum(r["answer_type"].strip() == "CLOSED" for r in raw)
    assert (document["benchmark"]["found"], document["benchmark"]["closed"]) == (len(raw), closed)
    assert "split 'train' instead of 'test'" in document["benchmark"]["remarks"][0]
    value = {(r["metric"], r["target"], r["setting"]): r["value"] for r in document["rows"]}
    assert {v for (_, _, setting), v in value.items() if setting == "predictions"} == {1.0}
    # the commonest answer to a question's words, from other images, beats a coin and is far from right
    assert 0.5 < value["accuracy", "closed", "question only"] < 0.9
