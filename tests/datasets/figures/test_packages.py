"""Packages: archives and folders, what is found, and what is refused in one line."""

import gzip
import io
import tarfile

import pytest

from kvlp.datasets.figures import packages
from kvlp.datasets.figures.packages import find_packages, open_package
from kvlp.datasets.figures.planted.packages import write_package
from kvlp.errors import DataError

FILES = {"a.nxml": b"<article/>", "g1.jpg": b"jpeg", "g1.gif": b"gif", "g2.tif": b"tif", "Big.PNG": b"png"}


def tar_of(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, data, kind in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_archive_and_folder_give_the_same(tmp_path, packed):
    package = open_package(write_package(tmp_path, "PMC1", FILES, packed=packed))
    assert package.xml == b"<article/>"
    assert package.image(["g1"]) == ("g1.jpg", b"jpeg")
    assert package.image(["media/big.png"]) == ("big.png", b"png")
    assert package.image(["g9.tif", "g1.tif"]) == ("g1.jpg", b"jpeg")
    with pytest.raises(DataError, match=r"'g2\.tif': expected PNG or JPEG, got TIF"):
        package.image(["g2"])
    with pytest.raises(DataError, match="picture 'g3' is not in the package"):
        package.image(["g3"])


def test_a_name_in_xml_is_never_a_path(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    package = open_package(write_package(tmp_path / "in", "PMC1", FILES, packed=False))
    for name in ("../../secret.jpg", str(tmp_path / "secret.jpg"), "..\\..\\secret.jpg"):
        with pytest.raises(DataError, match="is not in the package"):
            package.image([name])


def test_links_are_not_followed(tmp_path):
    folder = write_package(tmp_path, "PMC1", FILES, packed=False)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "g7.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="is not in the package"):
        open_package(folder).image(["g7"])
    linked = tar_of(
        tmp_path / "l.tar.gz", [("a.nxml", b"<article/>", tarfile.REGTYPE), ("g7.jpg", b"", tarfile.SYMTYPE)]
    )
    with pytest.raises(DataError, match="is not in the package"):
        open_package(linked).image(["g7"])


@pytest.mark.parametrize("name", ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg"])
def test_a_path_that_leads_out_refuses_the_package(tmp_path, name):
    path = tar_of(tmp_path / "x.tar.gz", [("a.nxml", b"<article/>", tarfile.REGTYPE), (name, b"x", tarfile.REGTYPE)])
    with pytest.raises(DataError, match="a path that leads out of it; the package is refused"):
        open_package(path)


def test_every_cut_of_an_archive_is_one_line(tmp_path):
    whole = write_package(tmp_path, "PMC1", FILES | {"g3.jpg": bytes(range(256)) * 40}).read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        cut = tmp_path / "cut.tar.gz"
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError) as caught:
            open_package(cut)
        assert "\n" not in str(caught.value)


def test_an_archive_that_grows_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_MAX_STREAM", 1 << 20)
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bytes(4 << 20)))
    path = tar_of(tmp_path / "big.tar.gz", [("video.avi", bytes(4 << 20), tarfile.REGTYPE)])
    with pytest.raises(DataError, match="unpacks to more than"):
        open_package(path)


def test_a_large_picture_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_MAX_IMAGE", 1000)
    path = write_package(tmp_path, "PMC1", FILES | {"g5.jpg": bytes(1001)})
    with pytest.raises(DataError, match=r"'g5.jpg': 1001 bytes, above the limit"):
        open_package(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [({"g.jpg": b"x"}, "without one"), ({"a.nxml": b"x", "b.nxml": b"x"}, "expected one article, got 2")],
)
def test_there_is_one_article(tmp_path, files, message):
    for packed in (True, False):
        with pytest.raises(DataError, match=message):
            open_package(write_package(tmp_path / str(packed), "PMC1", files, packed=packed))


def test_packages_are_found_at_any_depth_each_once(tmp_path):
    one = write_package(tmp_path / "a" / "b", "PMC1", FILES)
    two = write_package(tmp_path / "a", "PMC2", FILES, packed=False)
    three = write_package(tmp_path / "c", "PMC3", {"x.xml": b"<a/>", "g.png": b""}, packed=False)
    (tmp_path / "notes.txt").write_text("x")
    assert find_packages([tmp_path, one]) == sorted([one, two, three])


def test_nothing_to_find(tmp_path):
    with pytest.raises(DataError, match="no package found"):
        find_packages([tmp_path])
    with pytest.raises(DataError, match="got nothing"):
        find_packages([tmp_path / "none"])
