"""Articles: what is read from JATS, whose licence a figure is under, and XML that must not be trusted."""

import pytest

from kvlp.datasets.figures.jats import read_article
from kvlp.datasets.figures.licences import is_third_party, licence_name
from kvlp.datasets.figures.xml import parse_xml, text_of
from kvlp.errors import DataError

ARTICLE = """<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "JATS.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><journal-meta><journal-title>J</journal-title></journal-meta>
<article-meta><article-id pub-id-type="pmc">12</article-id><article-id pub-id-type="doi">10.1/x</article-id>
<title-group><article-title>On <italic>it</italic></article-title></title-group>
<contrib-group><contrib contrib-type="author"><name><surname>Li</surname><given-names>A</given-names></name></contrib>
</contrib-group><pub-date><year>2020</year></pub-date>
<permissions>{licence}</permissions></article-meta></front><body>{body}</body></article>"""
BY = '<license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>x</license-p></license>'
FIG = '<fig id="F1"><label>Figure 1</label><caption>{caption}</caption><graphic xlink:href="g1"/></fig>'


def article(body, licence=BY):
    return read_article(ARTICLE.format(licence=licence, body=body).encode())


def test_ids_title_and_licence():
    read = article(FIG.format(caption="<p>One.</p>"))
    assert (read.pmcid, read.doi, read.title, read.authors, read.journal, read.year) == (
        "PMC12", "10.1/x", "On it", "Li A", "J", "2020",
    )  # fmt: skip
    assert (read.licence, read.licence_url) == ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")


def test_a_caption_is_its_words_with_what_is_bold():
    caption = "<title>Title.</title><p><bold>a</bold>\n One&nbsp;&#x3b1; x<sup>2</sup>.</p><p>Two.<graphic/></p>"
    (figure,) = article(FIG.format(caption=caption)).figures
    assert figure.caption.text == "Title. a One α x2. Two."
    assert [figure.caption.text[start:end] for start, end in figure.caption.strong] == ["a"]


def test_alternatives_are_one_picture_and_two_graphics_are_two():
    body = (
        '<fig id="F1"><caption><p>x</p></caption><alternatives><graphic xlink:href="a.tif"/>'
        '<graphic xlink:href="a.jpg"/>'
        '</alternatives></fig><fig id="F2"><caption><p>x</p></caption>'
        '<graphic xlink:href="b"/><graphic xlink:href="c"/></fig>'
    )
    first, second = article(body).figures
    assert first.images == (("a.tif", "a.jpg"),)
    assert second.images == (("b",), ("c",))


def test_a_group_gives_its_caption_to_its_figures():
    body = f"<fig-group><caption><p>All.</p></caption>{FIG.format(caption='<p>One.</p>')}</fig-group>"
    assert article(body).figures[0].caption.text == "All. One."


def test_ids_are_unique():
    assert [figure.id for figure in article(FIG.format(caption="") * 2 + "<fig/>").figures] == [
        "F1",
        "F1-2",
        "figure-3",
    ]


def test_a_figure_with_rights_of_its_own():
    own = '<permissions><copyright-holder>Press Ltd</copyright-holder></permissions><graphic xlink:href="g1"/>'
    (figure,) = article(FIG.format(caption="<p>x</p>").replace('<graphic xlink:href="g1"/>', own)).figures
    assert (figure.holder, figure.licence) == ("Press Ltd", "CC BY 4.0")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("http://creativecommons.org/licenses/by-nc-nd/3.0/", "CC BY-NC-ND 3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("This is distributed under the Creative Commons Attribution License", "CC BY"),
        ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International", "CC BY-NC-ND 4.0"),
        ("licensed under CC BY-NC 4.0", "CC BY-NC 4.0"),
        ("All rights reserved.", ""),
    ],
)
def test_licence_names(text, name):
    assert licence_name(text) == name


def test_a_licence_that_no_rule_knows_is_never_an_open_one():
    read = article("", '<license license-type="open-access"><license-p>Free to read.</license-p></license>')
    assert read.licence == "other: open-access"
    assert article("", "").licence == ""


@pytest.mark.parametrize(
    ("caption", "theirs"),
    [
        ("Reproduced from Smith et al. with permission from Press.", True),
        ("© 2010 Press", True),
        ("Adapted from [3] with permission", True),
        ("CT of the chest.", False),
        ("A modified technique was used.", False),
    ],
)
def test_third_party(caption, theirs):
    assert is_third_party(caption) is theirs


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<a><b></a>", "broken XML at line 1, column 9: mismatched tag"),
        (b"", "broken XML at line 1"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "declares entities of its own; refused"),
        (b'<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><a>&z;</a>', "declares entities of its own; refused"),
        (b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://x/"> %p;]><a/>', "declares entities of its own; refused"),
        (b"<a>" * 300, "nested deeper than 200"),
        (b'<?xml version="1.0" encoding="martian"?><a/>', "broken XML: unknown encoding"),
    ],
)
def test_xml_that_is_refused(data, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_xml(data)
    assert "\n" not in str(caught.value)


def test_names_of_the_usual_dtds_are_known_and_nothing_is_fetched():
    root = parse_xml(b'<!DOCTYPE a PUBLIC "x" "http://localhost:1/x.dtd"><a>&alpha;&nbsp;&unheardof;b</a>')
    assert text_of(root) == "α b"


def test_what_is_no_article():
    with pytest.raises(DataError, match="expected a JATS article with article-meta, got <html>"):
        read_article(b"<html/>")
