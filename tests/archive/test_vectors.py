"""The vector layer: exact search against brute force, FAISS's own file format, damaged files."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp import vectors as layer
from kvlp.errors import ArchiveError, ConfigError, MissingExtraError, ShapeError
from kvlp.vectors import VectorIndex, choose_kind, read_ann, read_flat, unit_rows

faiss = pytest.importorskip("faiss")


def brute_force(vectors: np.ndarray, query: np.ndarray, k: int) -> list[tuple[int, float]]:
    """Slow reference: one row at a time in Python, equal scores by position."""
    scored = []
    for position, row in enumerate(vectors.astype(np.float64)):
        scored.append((-float((row * query).sum()), position))
    return [(position, -score) for score, position in sorted(scored)[:k]]


def cloud(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Unit vectors with exact duplicates, near duplicates and zero rows among them."""
    rows = unit_rows(rng.standard_normal((count, dim)))
    for _ in range(count // 4):
        a, b = rng.integers(0, count, 2)
        rows[a] = rows[b]
    rows[rng.integers(0, count)] = 0
    near = rows[0] + np.float32(1e-8)
    rows[rng.integers(0, count)] = near
    return rows


@pytest.mark.parametrize("seed", range(100))
def test_exact_search_is_brute_force_with_ties_by_position(seed):
    rng = np.random.default_rng(seed)
    count, dim, k = int(rng.integers(1, 120)), int(rng.integers(1, 40)), int(rng.integers(1, 30))
    rows = cloud(rng, count, dim)
    query = rng.standard_normal(dim) if seed % 3 else rows[rng.integers(0, count)].astype(np.float64)
    positions, scores = VectorIndex(rows).search(query, k)
    assert list(zip(positions.tolist(), scores.tolist(), strict=True)) == brute_force(rows, query, k)


def test_single_precision_cannot_change_the_order():
    # scores that differ by less than single precision resolves: the shortlist must keep them all
    rng = np.random.default_rng(3)
    base = unit_rows(rng.standard_normal(256))[0]
    for _ in range(10):
        rows = (base + 3e-8 * rng.standard_normal((400, 256))).astype(np.float32)
        query = 3 * base.astype(np.float64)
        positions, scores = VectorIndex(rows).search(query, 7)
        assert list(zip(positions.tolist(), scores.tolist(), strict=True)) == brute_force(rows, query, 7)


def test_search_among_allowed_positions_only():
    rows = np.eye(6, dtype=np.float32)
    positions, scores = VectorIndex(rows).search(np.arange(6.0), 3, allowed=np.array([0, 2, 5]))
    assert positions.tolist() == [5, 2, 0]
    assert scores.tolist() == [5, 2, 0]
    assert VectorIndex(rows).search(np.arange(6.0), 3, allowed=np.array([], dtype=np.int64))[0].size == 0


def test_more_than_there_is_and_nothing_at_all():
    assert VectorIndex(np.eye(2, dtype=np.float32)).search(np.ones(2), 10)[0].tolist() == [0, 1]
    assert VectorIndex(np.zeros((0, 4), np.float32)).search(np.ones(4), 3)[0].size == 0


def test_unit_rows_refuses_what_is_not_a_number_and_keeps_zero():
    assert np.allclose(unit_rows([[3.0, 4.0], [0.0, 0.0]]), [[0.6, 0.8], [0, 0]])
    with pytest.raises(ArchiveError, match="embedding 1 holds NaN"):
        unit_rows([[1.0, 0.0], [np.nan, 0.0]])
    with pytest.raises(ShapeError, match=r"\(N, 3\) but have shape \(2,\)"):
        unit_rows([1.0, 2.0], dim=3)


def test_a_query_of_another_length_or_with_nan_is_refused():
    index = VectorIndex(np.eye(3, dtype=np.float32))
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        index.search(np.ones(4), 1)
    with pytest.raises(ArchiveError, match="NaN"):
        index.search(np.array([1, np.nan, 0]), 1)


def test_flat_file_is_the_file_that_faiss_writes_and_reads(tmp_path):
    rows = unit_rows(np.random.default_rng(0).standard_normal((37, 9)))
    theirs = faiss.IndexFlatIP(9)
    theirs.add(rows)
    ours = VectorIndex(rows).flat_bytes()
    assert ours == faiss.serialize_index(theirs).tobytes()
    (tmp_path / "x.faiss").write_bytes(ours)
    back = faiss.read_index(str(tmp_path / "x.faiss"))
    assert (back.ntotal, back.d, back.metric_type) == (37, 9, faiss.METRIC_INNER_PRODUCT)
    assert np.array_equal(read_flat(ours, count=37, dim=9), rows)


@given(st.data())
def test_a_flat_file_of_another_size_or_header_is_refused(data):
    whole = VectorIndex(np.eye(5, 4, dtype=np.float32)).flat_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ArchiveError):
        read_flat(whole[:cut], count=5, dim=4)
    at, bit = data.draw(st.integers(0, layer._FLAT_HEADER.size - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << bit
    with pytest.raises(ArchiveError):
        read_flat(bytes(damaged), count=5, dim=4)


def test_choice_by_size_and_without_faiss(monkeypatch):
    assert [choose_kind(n) for n in (0, 200_000, 200_001, 2_000_000, 2_000_001)] == [
        "flat",
        "flat",
        "hnsw",
        "hnsw",
        "ivf",
    ]
    monkeypatch.setattr(layer, "find_spec", lambda name: None)
    assert choose_kind(10_000_000) == "flat"


def test_asking_for_faiss_without_it_names_the_extra(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(layer, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"kvlp\[cpu\]"):
        VectorIndex(np.eye(3, dtype=np.float32), kind="hnsw")
    assert VectorIndex(np.eye(3, dtype=np.float32)).search(np.ones(3), 1)[0].tolist() == [0]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="flat, hnsw, ivf"):
        VectorIndex(np.eye(3, dtype=np.float32), kind="lsh")


@pytest.fixture(scope="module")
def clustered() -> np.ndarray:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((40, 24))
    return unit_rows(centres[rng.integers(0, 40, 3000)] + 0.5 * rng.standard_normal((3000, 24)))


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_search_finds_95_of_100_and_survives_the_disk(tmp_path, clustered, kind):
    index = VectorIndex(clustered, kind=kind)
    path = tmp_path / "x.ann"
    path.write_bytes(index.ann_bytes())
    back = VectorIndex.from_bytes(index.flat_bytes(), count=3000, dim=24, kind=kind, ann=path)
    found = 0
    for query in np.random.default_rng(1).permutation(clustered)[:50].astype(np.float64):
        exact, exact_scores = index.search(query, 10, exact=True)
        positions, scores = back.search(query, 10)
        found += len(set(exact.tolist()) & set(positions.tolist()))
        common = dict(zip(exact.tolist(), exact_scores.tolist(), strict=True))
        assert all(common.get(p, s) == s for p, s in zip(positions.tolist(), scores.tolist(), strict=True))
    assert found / 500 >= 0.95
    assert index.search(clustered[0].astype(np.float64), 3, exact=True)[0].tolist() == [
        p for p, _ in brute_force(clustered, clustered[0].astype(np.float64), 3)
    ]


def test_an_approximate_file_of_another_type_is_never_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(layer, "_try_in_child", lambda path: pytest.fail("was parsed"))
    path = tmp_path / "x.ann"
    for content in (b"", b"IxPT" + bytes(100), VectorIndex(np.eye(3, dtype=np.float32)).flat_bytes()):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="not a FAISS index of kind hnsw"):
            read_ann(path, count=3, dim=3, kind="hnsw")


def test_the_byte_limit_is_the_files_size_and_is_put_back(tmp_path, clustered):
    before = faiss.get_deserialization_vector_byte_limit()
    path = tmp_path / "x.ann"
    whole = bytearray(VectorIndex(clustered[:200], kind="hnsw").ann_bytes())
    path.write_bytes(bytes(whole[: len(whole) // 2]))
    with pytest.raises(ArchiveError, match="damaged"):
        read_ann(path, count=200, dim=24, kind="hnsw")
    assert faiss.get_deserialization_vector_byte_limit() == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_damaged_approximate_files_with_a_right_hash_cost_at_most_an_error(tmp_path, clustered):
    """An attacker can make every hash fit. The parent never crashes, hangs or grows; the child may."""
    rng = np.random.default_rng(0)
    path = Path(tmp_path / "x.ann")
    refused = 0
    turns = max(16, int(120 * float(os.environ.get("KVLP_SLOW_SHARE", "1"))))
    for turn in range(turns):
        kind = ("hnsw", "ivf")[turn % 2]
        whole = bytearray(VectorIndex(clustered[:300], kind=kind).ann_bytes())
        for _ in range(int(rng.integers(1, 4))):
            whole[int(rng.integers(4, len(whole) if turn % 4 < 2 else 400))] = int(rng.integers(0, 256))
        path.write_bytes(bytes(whole))
        start = time.monotonic()
        try:
            index = read_ann(path, count=300, dim=24, kind=kind)
            index.search(clustered[:1], 5)
        except ArchiveError:
            refused += 1
        assert time.monotonic() - start < 130
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{refused} of {turns} damaged files were refused; peak memory of the parent {grown:.0f} MB")
    assert refused > 0
    assert grown < 2048
