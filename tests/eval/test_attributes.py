"""Groups of patients from a manifest's columns: age bands, spellings of sex, unknown values, rare groups."""

import pytest

from kvlp.datasets.manifest import Record
from kvlp.eval.attributes import age_band, record_attributes


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("0", "0-19"), ("19", "0-19"), ("20", "20-39"), ("063Y", "60-79"), ("79.9", "60-79"), ("80", "80 and over"),
        ("120", "80 and over"), ("63 years", "60-79"), ("008M", "0-19"), ("10 months", "0-19"), ("12D", "0-19"),
        ("121", ""), ("414", ""), ("", ""), ("unknown", ""), ("-3", ""), ("60s", ""), ("999M", ""),
    ],
)  # fmt: skip
def test_age_bands(text, band):
    assert age_band(text) == band


def test_columns_are_found_whatever_their_spelling():
    records = [
        Record(id="1", view="PA", source="a", extra={"Patient_Age": "30", "Patient Gender": "F", "Scanner": " X  2 "}),
        Record(id="2", view="AP", source="a", extra={"Patient_Age": "70", "Patient Gender": "male", "Scanner": "Y"}),
        Record(id="3", view="", source="a", extra={"Patient_Age": "?", "Patient Gender": "U", "Scanner": "N/A"}),
    ]
    assert record_attributes(records) == {
        "age": ["20-39", "60-79", ""],
        "sex": ["female", "male", ""],
        "view": ["PA", "AP", ""],
        "device": ["X 2", "Y", ""],
    }  # one source alone tells no groups
    assert record_attributes([]) == {}


def test_of_many_groups_the_rarest_are_put_together():
    records = [Record(id=str(i), extra={"site": f"s{min(i, 20):02d}"}) for i in range(40)]
    sites = record_attributes(records)["site"]
    assert len(set(sites)) == 12
    assert sites[0] == "s00"
    assert sites.count("s20") == 20
    assert sites.count("other") == 10
