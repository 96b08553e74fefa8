"""Tables of reports to tables of labels: order, columns, rows that cannot be read, and the commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from kvlp.cli import main
from kvlp.datasets.report_labels import label_table, read_reports
from kvlp.errors import DataError, ManifestError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.labels import ReportLabeler

ROWS = [
    ("007", "INDICATION unused", "Small left effusion.", "No pneumothorax.", "1"),
    ("008", "", "", "", "0"),
    ("003", "", "The lungs are clear.", "Probable small effusion.", "1"),
]
FOREIGN = (
    "El corazón es de tamaño normal y los pulmones están claros sin derrame pleural ni neumotórax en el lado derecho."
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "indication", "findings", "impression", "gold_Effusion"])
        writer.writerows(ROWS)
    return path


@pytest.fixture(scope="module")
def labeler() -> ReportLabeler:
    return ReportLabeler(KnowledgeGraph.load("chest"), {"Effusion": ["pleural effusion"], "Air": ["pneumothorax"]})


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_columns_become_sections(table: Path) -> None:
    assert read_reports(table, ["findings", "impression"]).texts == (
        "FINDINGS: Small left effusion.\nIMPRESSION: No pneumothorax.",
        "",
        "FINDINGS: The lungs are clear.\nIMPRESSION: Probable small effusion.",
    )


def test_rows_keep_their_order_and_ids_their_zeros(table: Path, labeler: ReportLabeler, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    done = label_table(
        table, tmp_path / "labels.csv", labeler, columns=["findings", "impression"],
        progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert cells(done.path) == [
        ["uid", "Effusion", "Air"], ["007", "1", "0"], ["008", "", ""], ["003", "-1", ""]
    ]  # fmt: skip
    assert (done.rows, done.problems) == (3, ())
    assert done.counts["Effusion"] == {"1": 1, "0": 0, "-1": 1, "": 1}
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_indication_does_not_label(table: Path, labeler: ReportLabeler, tmp_path: Path) -> None:
    rows = [["uid", "indication"], ["1", "Pleural effusion."]]
    table.write_text("\n".join(",".join(r) for r in rows), encoding="utf-8")
    assert cells(label_table(table, tmp_path / "l.csv", labeler, columns=["indication"]).path)[1] == ["1", "", ""]


def test_columns_to_keep(table: Path, labeler: ReportLabeler, tmp_path: Path) -> None:
    out = label_table(table, tmp_path / "l.csv", labeler, columns=["findings"], keep=["gold_Effusion"]).path
    assert cells(out)[:2] == [["gold_Effusion", "Effusion", "Air"], ["1", "1", ""]]
    table.write_text("text\nNo effusion.\nEffusion.\n", encoding="utf-8")
    out = label_table(table, tmp_path / "l.csv", labeler, columns=["text"]).path
    assert cells(out) == [["row", "Effusion", "Air"], ["1", "0", ""], ["2", "1", ""]]


def test_a_row_in_another_language_is_named_and_the_others_go_on(
    table: Path, labeler: ReportLabeler, tmp_path: Path
) -> None:
    table.write_text(f"uid,findings\n1,No effusion.\n2,{FOREIGN}\n3,Effusion.\n", encoding="utf-8")
    done = label_table(table, tmp_path / "l.csv", labeler, columns=["findings"])
    assert [row[1] for row in cells(done.path)] == ["Effusion", "0", "", "1"]
    assert [(p.row, "Spanish" in p.message, "corazón" in p.message) for p in done.problems] == [(2, True, False)]


@pytest.mark.parametrize(
    ("columns", "keep", "error", "message"),
    [
        (["finding"], [], ManifestError, "no column 'finding'; did you mean 'findings'"),
        ([], [], ManifestError, "name at least one column"),
        (["findings"], ["nothing"], ManifestError, "no column 'nothing' to keep"),
    ],
)
def test_bad_columns(
    table: Path, labeler: ReportLabeler, tmp_path: Path, columns: list[str], keep: list[str], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        label_table(table, tmp_path / "l.csv", labeler, columns=columns, keep=keep)
    assert not (tmp_path / "l.csv").exists()


def test_a_class_may_not_overwrite_a_kept_column(table: Path, labeler: ReportLabeler, tmp_path: Path) -> None:
    table.write_text("Effusion,findings\n1,No effusion.\n", encoding="utf-8")
    with pytest.raises(DataError, match="'Effusion' is a kept column and a class"):
        label_table(table, tmp_path / "l.csv", labeler, columns=["findings"], keep=["Effusion"])


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["link", *args])
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def test_the_labels_command(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "labels.csv"
    args = ("labels", str(table), "--text", "findings,impression", "--classes", "nih14", "--out", str(out))
    status, shown, _ = run(capsys, *args)
    assert status == 0
    assert "3 rows" in shown
    assert len(cells(out)[0]) == 1 + 14
    document = json.loads(run(capsys, *args, "--json")[1])
    assert document["counts"]["Pneumothorax"]["0"] == 1


def test_the_labels_command_exits_1_for_rows_not_read(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(f"uid,findings\n1,No effusion.\n2,{FOREIGN}\n", encoding="utf-8")
    out = tmp_path / "labels.csv"
    status, _, said = run(capsys, "labels", str(table), "--text", "findings", "--out", str(out))
    assert status == 1
    assert "row 2" in said
    assert len(cells(out)) == 3
    assert run(capsys, "labels", str(table), "--text", "findings", "--out", str(out), "--any-language")[0] == 0


def test_the_score_command(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors, figures = tmp_path / "errors.csv", tmp_path / "figures.json"
    args = ("score", str(table), "--text", "findings,impression", "--classes", "nih14", "--gold", "gold_{}")
    others = ",".join(c for c in LIST if c != "Effusion")
    more = ("--without", others, "--errors", str(errors), "--out", str(figures))
    status, shown, _ = run(capsys, *args, *more)
    assert status == 0
    assert "Effusion" in shown
    document = json.loads(figures.read_text(encoding="utf-8"))
    assert document["uncertain"]["graded"][0]["tp"] == 2  # "probable" counts as present when doubts are graded
    assert cells(errors) == [["report", "name", "kind", "phenomenon", "start", "end"]]
    run(capsys, *args, *more, "--uncertain", "zeros")
    assert cells(errors)[1][:4] == ["003", "Effusion", "miss", "probable"]


LIST = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--gold", "truth_{}"), "there is no column 'truth_Atelectasis'"),
        (("--gold", "gold_{}", "--without", "Spots"), "no class 'Spots'"),
        (("--gold", "gold_{}", "--where", "uid"), "expected COLUMN=VALUE"),
        (("--gold", "gold_{}", "--where", "uid=999"), "no row has this value"),
    ],
)
def test_wrong_use_of_the_score_command(
    table: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    status, _, said = run(capsys, "score", str(table), "--text", "findings", "--classes", "nih14", *more)
    assert status == 2
    assert message in " ".join(said.split())
