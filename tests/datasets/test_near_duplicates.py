"""Copies of a picture are found, whatever was done to the file; pictures of other patients are not."""

import io

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets import near_duplicates as module
from kvlp.datasets.images import load_grey_uint8
from kvlp.datasets.leaks import find_leaks
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.near_duplicates import SIDE, closest, fingerprint, near_duplicates
from kvlp.datasets.phantom.cases import sample_case
from kvlp.datasets.phantom.drawing import render
from kvlp.datasets.registration import detail_correlation
from kvlp.errors import ShapeError


def jpeg(grey, quality=50):
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(grey, factor):
    height, width = grey.shape
    return np.asarray(Image.fromarray(grey).resize((round(width * factor), round(height * factor))))


def cropped(grey, left, right, above, below):
    height, width = grey.shape
    return grey[
        round(above * height) : height - round(below * height), round(left * width) : width - round(right * width)
    ]


#: what is done to a copy
COPIES = {
    "re-encoded": jpeg,
    "half the size": lambda grey: resized(grey, 0.5),
    "twice the size": lambda grey: resized(grey, 2),
    "brighter": lambda grey: np.clip(grey * 1.15 + 10.0, 0, 255).astype(np.uint8),
    "gamma": lambda grey: (255 * (grey / 255) ** 0.7).astype(np.uint8),
    "cropped": lambda grey: cropped(grey, 0.04, 0.04, 0.04, 0.04),
    "cropped at two sides": lambda grey: cropped(grey, 0.06, 0, 0, 0.05),
    "letterboxed": lambda grey: np.pad(grey, ((0, 0), (grey.shape[1] // 6,) * 2)),
    "all of it": lambda grey: jpeg(resized(cropped((grey * 0.9 + 8).astype(np.uint8), 0.03, 0.01, 0, 0.04), 0.7), 60),
}


@pytest.fixture(scope="module")
def films():
    """Forty phantom films of as many patients."""
    return [render(sample_case(np.random.default_rng([8, number])), 128).image for number in range(40)]


@pytest.fixture(scope="module")
def prints(films):
    return np.stack([fingerprint(film) for film in films])


@pytest.mark.slow
def test_copies_are_found_and_no_other_pictures(films, prints):
    planted = [(row, fingerprint(copy(films[row]))) for row in (3, 12) for copy in COPIES.values()]
    others = np.concatenate([prints[20:], [picture for _, picture in planted]])  # 20 x 38: too many to look at each
    found = near_duplicates(prints[:20], others)
    assert {(pair.first, pair.second) for pair in found} == {(row, 20 + n) for n, (row, _) in enumerate(planted)}


def test_rows_keep_their_places_whichever_side_is_larger():
    some = np.stack([fingerprint(patches(number)) for number in range(6)])
    for first, second, pairs in ((some, some[4:], {(4, 0), (5, 1)}), (some[4:], some, {(0, 4), (1, 5)})):
        found = near_duplicates(first, second, jobs=1)
        assert {(pair.first, pair.second) for pair in found} == pairs
        assert all(pair.score > 0.999 for pair in found)


def test_a_shift_and_a_scale_are_found_by_hand(prints):
    """A copy that shows x * 0.9 + 0.05 of the first is laid back onto it."""
    from kvlp.datasets.registration import _sampled

    place = np.tile(np.float32([0.92, 0.05, 0.94, -0.04]), (10, 1))
    moved = _sampled(prints[:10, None].astype(np.float32), place)[:, 0].astype(np.uint8)
    assert detail_correlation(moved, prints[:10]).min() > 0.9
    assert detail_correlation(moved, prints[10:20]).max() < 0.85
    blank = np.full((1, SIDE, SIDE), 90, np.uint8)
    assert detail_correlation(blank, blank).tolist() == [0]


def test_blank_pictures_are_no_copies_of_each_other():
    plain = np.stack([np.full((SIDE, SIDE), grey, np.uint8) for grey in (0, 90, 255)])
    assert near_duplicates(plain, plain) == []
    assert fingerprint(np.zeros((50, 70), np.uint8)).shape == (SIDE, SIDE)
    assert near_duplicates(plain[:0], plain) == []


def test_shapes_are_checked(prints):
    with pytest.raises(ShapeError, match=r"second must have shape \(N, 64, 64\) but has shape \(2, 8, 8\)"):
        near_duplicates(prints[:2], np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(ShapeError, match="even S"):
        detail_correlation(prints[:2], prints[:3])


def test_closest_are_the_nearest_of_the_smaller_side():
    rng = np.random.default_rng(0)
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 40, 5)))
    second = second[:7].astype(np.float32)
    table = first @ second.T
    wanted = {(int(i), j) for j in range(7) for i in np.argsort(-table[:, j])[:2]}
    assert set(closest(first.astype(np.float32), second, 2)) == wanted
    assert set(closest(second, first.astype(np.float32), 2)) == {(j, i) for i, j in wanted}
    assert closest(first.astype(np.float32), second[:0]) == []


def test_vectors_propose_what_low_frequencies_miss(films, prints, monkeypatch):
    far = np.stack([fingerprint(cropped(film, 0.1, 0.1, 0.1, 0.1)) for film in films[:25]])
    nothing = np.zeros(0, dtype=np.intp)
    monkeypatch.setattr(module, "_nearest", lambda *_: (nothing, nothing))
    assert near_duplicates(prints[:25], far) == []
    led = near_duplicates(prints[:25], far, candidates=[(i, i) for i in range(25)] + [(3, 4)])
    assert {(pair.first, pair.second) for pair in led} == {(i, i) for i in range(25)}


def patches(number):
    """A picture of random squares: no two are alike."""
    squares = np.random.default_rng(number).integers(0, 255, (16, 16))
    return np.kron(squares, np.ones((6, 6))).astype(np.uint8)


@pytest.fixture
def planted(tmp_path):
    """Pictures in two splits of other patients: one copied, one cropped and re-encoded, one that cannot be read."""
    shown = [*map(patches, range(12)), patches(3), jpeg(cropped(patches(5), 0.03, 0, 0, 0.02), 80)]
    records = []
    for number, picture in enumerate(shown):
        name = f"{number}.png"
        Image.fromarray(picture).save(tmp_path / name, compress_level=number % 9)
        split = "train" if number < 8 else "test"
        records.append(Record(str(number), name, patient_id=f"secret-{number}", split=split))
    (tmp_path / "11.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    return Manifest(records, tmp_path)


def test_a_planted_leak_is_found_whole_in_files(planted):
    steps = []
    report = find_leaks(planted, progress=lambda done, total: steps.append((done, total)))
    assert [(leak.kind, dict(leak.rows), dict(leak.images)) for leak in report.rows] == [
        ("pixels", {"train": (4,), "test": (13,)}, {"train": ("3.png",), "test": ("12.png",)}),
        ("near_duplicate", {"train": (6,), "test": (14,)}, {"train": ("5.png",), "test": ("13.png",)}),
    ]
    assert report.unreadable == {"test": (12,)}
    assert report.counts == {"patient": 0, "pixels": 1, "near_duplicate": 1}
    assert steps[-1] == (14, 14)
    shown = "\n".join(map(str, report.rows)) + str(report.to_dict())
    assert "secret" not in shown, "no patient id in what is shown"
    assert "near_duplicate: train row 6; test row 14 (correlation 0." in shown


def test_two_manifests_and_a_model(planted):
    class Seen:
        count = 0

        def encode_image(self, images, *, batch_size=64):
            self.count += len(images)
            return np.ones((len(images), 2), np.float32) / np.sqrt(2)

    train, test = planted.subset("train"), planted.subset("test")
    model = Seen()
    report = find_leaks(test, train, model=model, skip=["patient"])
    assert [dict(leak.rows) for leak in report.rows] == [
        {"manifest": (5,), "against": (4,)},
        {"manifest": (6,), "against": (6,)},
    ]
    assert model.count == 13, "every readable picture once"
    assert report.unknown["patient"] == "not looked for"
    assert find_leaks(test, test, skip=["near_duplicate"]).counts["pixels"] == 5


@pytest.mark.slow
def test_a_planted_share_of_real_films_is_found_whole(kvlp_data):
    """One in a hundred is copied in each way; no two films of different patients are taken for copies.

    Prints for docs/leaks.md: pytest -m slow -s tests/datasets/test_near_duplicates.py
    """
    root = kvlp_data / "cxr-real"
    manifest = Manifest.load(root / "manifest.csv")
    greys = [load_grey_uint8(root / record.image) for record in manifest]
    prints = np.stack([fingerprint(grey) for grey in greys])
    train = [row for row, record in enumerate(manifest) if record.split == "train"]
    dev = [row for row, record in enumerate(manifest) if record.split == "dev"]
    chosen = np.random.default_rng(0).choice(train, size=len(train) // 100, replace=False)
    copies = np.stack([fingerprint(copy(greys[row])) for copy in COPIES.values() for row in chosen])
    found = near_duplicates(prints[train], np.concatenate([prints[dev], copies]))
    score = {(train[pair.first], pair.second - len(dev)): pair.score for pair in found}
    print(f"{len(train)} training films, {len(dev)} others, {len(chosen)} copies of each kind")
    for number, kind in enumerate(COPIES):
        scores = [score.get((row, number * len(chosen) + n), 0.0) for n, row in enumerate(chosen)]
        print(f"{kind}: {sum(s > 0 for s in scores)} of {len(chosen)} found, lowest correlation {min(scores):.3f}")
        assert min(scores) > 0, kind
    real = [(row + 1, dev[other + len(dev)] + 1, round(s, 3)) for (row, other), s in score.items() if other < 0]
    print(f"besides the copies: {real}")
    halves = near_duplicates(prints[::2], prints[1::2])
    named = [(manifest[2 * p.first], manifest[2 * p.second + 1], p.score) for p in halves]
    strangers = [(a.image, b.image, round(s, 3)) for a, b, s in named if a.patient_id != b.patient_id]
    print(f"{len(prints[::2]) * len(prints[1::2]):,} pairs, {len(halves)} alike, of other patients: {strangers}")
    assert len(strangers) == 11, "eleven pictures that two collections, or two patients of one, have in common"
