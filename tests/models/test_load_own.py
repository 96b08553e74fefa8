"""A saved folder loads here and in plain open_clip, whole or with one clear error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import kvlp.checkpoint_files
from kvlp.checkpoint_files import file_sha256
from kvlp.checkpoints import Model, load, save_checkpoint
from kvlp.errors import CheckpointError, ConfigError, ImageError, ShapeError
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.preprocess import Preprocess

SENTENCES = ["There is a small left pleural effusion.", "No pneumothorax.", "Xylophone 47 <ok> &amp;  twice", ""]
PLAIN_OPEN_CLIP = """
import sys, json
import numpy as np, torch, open_clip
from PIL import Image
pictures, texts, *folders = sys.argv[1:]
data = np.load(pictures)
for folder in folders:
    model, preprocess = open_clip.create_model_from_pretrained("local-dir:" + folder)
    tokenizer = open_clip.get_tokenizer("local-dir:" + folder)
    with torch.no_grad():
        pixels = torch.stack([preprocess(Image.fromarray(data[k]).convert("RGB")) for k in sorted(data)])
        image = model.eval().encode_image(pixels, normalize=True)
        text = model.encode_text(tokenizer(json.loads(texts)), normalize=True)
    np.savez(folder + ".npz", image=image.numpy(), text=text.numpy(), scale=model.logit_scale.exp().item())
assert not any(name.split(".")[0] == "kvlp" for name in sys.modules)
"""


def with_bert(folder: Path, cfg: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """The same configuration with a transformers text tower whose own configuration lies in `folder`."""
    from transformers import BertConfig

    BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    text = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": "tokenizer",
        "hf_proj_type": "linear",
        "hf_pooler_type": "mean_pooler",
        "context_length": 24,
    }
    return {**cfg, "text_cfg": text}


@pytest.fixture(scope="module")
def saved(
    tiny_folder: Path, tiny_module: torch.nn.Module, tiny_cfg: Any, tiny_tokenizer: Any, tmp_path_factory: Any
) -> dict[str, Path]:
    """One folder of each kind that kvlp writes."""
    room = tmp_path_factory.mktemp("kinds")
    half = save_tiny(room / "half", tiny_module, tiny_cfg, tiny_tokenizer, half=True)
    cfg = with_bert(room / "config", tiny_cfg, tiny_tokenizer)
    torch.manual_seed(1)
    bert = save_tiny(room / "bert", build_dual_encoder(cfg).eval(), cfg, tiny_tokenizer)
    whole = save_tiny(room / "whole", tiny_module, tiny_cfg, tiny_tokenizer)
    return {"whole": whole, "half": half, "bert": bert}


@pytest.fixture(scope="module")
def plain(saved: dict[str, Path], pictures: list[np.ndarray], tmp_path_factory: Any) -> dict[str, Any]:
    """What plain open_clip computes from these folders, in one process without kvlp."""
    scratch = tmp_path_factory.mktemp("plain")
    np.savez(scratch / "pictures.npz", *pictures)
    (scratch / "plain.py").write_text(PLAIN_OPEN_CLIP)
    arguments = [str(scratch / "pictures.npz"), json.dumps(SENTENCES), *map(str, saved.values())]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    subprocess.run([sys.executable, str(scratch / "plain.py"), *arguments], check=True, env=environment, cwd=scratch)
    return {kind: dict(np.load(f"{folder}.npz")) for kind, folder in saved.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "half", "bert"])
def test_plain_open_clip_computes_the_same_features(
    saved: dict[str, Path], plain: dict[str, Any], pictures: list[np.ndarray], kind: str
) -> None:
    ours = load(saved[kind])
    np.testing.assert_allclose(ours.encode_image(pictures), plain[kind]["image"], atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(SENTENCES), plain[kind]["text"], atol=1e-5)
    assert ours.logit_scale == pytest.approx(float(plain[kind]["scale"]), rel=1e-6)


def test_a_moved_folder_with_a_transformers_text_tower_loads(saved: dict[str, Path], tmp_path: Path) -> None:
    before = load(saved["bert"])
    shutil.move(shutil.copytree(saved["bert"], tmp_path / "copy"), tmp_path / "moved")
    rewrite(
        tmp_path / "moved" / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="/gone")
    )
    after = load(tmp_path / "moved")
    assert after.hash == before.hash
    np.testing.assert_array_equal(after.encode_text(SENTENCES), before.encode_text(SENTENCES))


def test_a_text_tower_that_is_not_here_is_named(saved: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(saved["bert"], tmp_path / "copy")
    (tmp_path / "copy" / "config.json").unlink()
    change = {"hf_model_name": "org/some-bert"}
    rewrite(tmp_path / "copy" / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(change))
    with pytest.raises(CheckpointError, match=r"'org/some-bert', whose config.json is not on this machine"):
        load(tmp_path / "copy")


def test_padding_that_the_text_tower_would_read_is_refused(tiny_cfg: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    cfg = with_bert(tmp_path / "config", tiny_cfg, tiny_tokenizer)
    rewrite(tmp_path / "config" / "config.json", lambda c: c.update(pad_token_id=5))
    with pytest.raises(CheckpointError, match="pads with id 0, the text tower expects 5"):
        save_tiny(tmp_path / "model", build_dual_encoder(cfg), cfg, tiny_tokenizer)


def test_load_gives_back_what_was_saved(tiny_folder: Path, tiny_module: torch.nn.Module, tiny_cfg: Any) -> None:
    model = load(tiny_folder)
    assert model.card["named_concepts"] == ["pleural_effusion"]
    assert model.licence == "Apache-2.0"
    assert (model.dim, model.image_size) == (32, 64)
    torch.testing.assert_close(model.extra["queries"], torch.arange(6.0).reshape(2, 3))
    for name, tensor in tiny_module.state_dict().items():
        torch.testing.assert_close(model.module.state_dict()[name], tensor, rtol=0, atol=0)
    assert model.model_cfg["text_cfg"]["width"] == tiny_cfg["text_cfg"]["width"]
    assert "prompted classification" in (tiny_folder / "README.md").read_text()


def test_exposure_is_an_arrow_table(
    tiny_module: torch.nn.Module, tiny_cfg: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    folder = save_tiny(tmp_path / "model", tiny_module, tiny_cfg, tiny_tokenizer, exposure=["ab", "cd", "ab"])
    with pa.memory_map(str(folder / "exposure.arrow")) as source:
        assert pa.ipc.open_file(source).read_all().to_pydict() == {"sha256": ["ab", "cd"]}


def test_batches_and_order_do_not_matter(tiny_folder: Path, pictures: list[np.ndarray]) -> None:
    model = load(tiny_folder)
    whole = model.encode_image(pictures)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(model.encode_image(pictures[::-1], batch_size=1)[::-1], whole, atol=1e-5)
    np.testing.assert_allclose(model.encode_text(SENTENCES, batch_size=1), model.encode_text(SENTENCES), atol=1e-5)
    np.testing.assert_allclose(model.score(pictures, SENTENCES), whole @ model.encode_text(SENTENCES).T, atol=1e-5)
    pixels = torch.stack([model.preprocess(picture) for picture in pictures])
    np.testing.assert_allclose(model.encode_pixels(pixels), whole, atol=1e-5)
    assert model.encode_image([]).shape == (0, 32)
    assert model.encode_text([]).shape == (0, 32)


def test_wrong_images_are_named_by_position(tiny_folder: Path, pictures: list[np.ndarray]) -> None:
    model = load(tiny_folder)
    with pytest.raises(ImageError, match=r"image 1: .*\[0, 1\], got 0 to 255"):
        model.encode_image([pictures[0], pictures[1].astype(np.float32)])
    with pytest.raises(ShapeError, match="put it into a list"):
        model.encode_image(pictures[0])
    with pytest.raises(ShapeError, match="list of images, got str"):
        model.encode_image("folder")
    with pytest.raises(ShapeError, match=r"\(N, 3, 64, 64\)"):
        model.encode_pixels(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match="position 1"):
        model.encode_text(["a", 3])  # type: ignore[list-item]


def test_hash_tells_models_apart(tiny_folder: Path, tiny_module: torch.nn.Module, tmp_path: Path) -> None:
    first = load(tiny_folder)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_folder, moved)
    assert load(moved).hash == first.hash
    assert len(first.hash) == 64
    other = load(tiny_folder, preprocess={"fill_color": 9})
    assert other.hash != first.hash
    with torch.no_grad():
        next(other.module.parameters()).view(-1)[0] += 1e-3
    assert Model(other.module, other.tokenizer, first.preprocess, model_cfg=first.model_cfg).hash != first.hash


def test_half_precision_halves_the_file_and_loads_in_float32(saved: dict[str, Path], pictures: Any) -> None:
    half, whole = ((saved[kind] / "open_clip_model.safetensors").stat().st_size for kind in ("half", "whole"))
    assert half < 0.55 * whole
    model = load(saved["half"])
    assert next(model.module.parameters()).dtype == torch.float32
    np.testing.assert_allclose(model.encode_image(pictures), load(saved["whole"]).encode_image(pictures), atol=5e-3)


# --- damage -----------------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights and make kvlp.json agree, so that the next check has to find it."""
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    rewrite(folder / "kvlp.json", lambda about: about.update(weights_sha256=file_sha256(path)))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def widen(state: dict[str, torch.Tensor]) -> None:
    state["visual.head.proj.weight"] = torch.zeros(7, 7)


def spoil(state: dict[str, torch.Tensor]) -> None:
    state["visual.head.proj.weight"][0, 0] = torch.nan


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "open_clip_config.json").unlink(), r"open_clip_config.json: missing"),
    "no weights": (lambda f: (f / "open_clip_model.safetensors").unlink(), r"open_clip_model.safetensors: missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer files; expected one of tokenizer.json"),
    "cut tokenizer": (lambda f: truncate(f / "tokenizer.json"), "tokenizer cannot be read"),
    "cut configuration": (
        lambda f: truncate(f / "open_clip_config.json"),
        "open_clip_config.json: not readable as JSON",
    ),
    "cut about": (lambda f: truncate(f / "kvlp.json"), "kvlp.json: not readable as JSON"),
    "bytes as JSON": (lambda f: (f / "kvlp.json").write_bytes(b"\xff\xfe\x00"), "kvlp.json: not readable as JSON"),
    "a list as JSON": (lambda f: (f / "kvlp.json").write_text("[]"), "expected a JSON object, got list"),
    "cut weights": (lambda f: truncate(f / "open_clip_model.safetensors"), "sha256 is not the one in kvlp.json"),
    "cut extra": (lambda f: truncate(f / "kvlp_extra.safetensors"), "kvlp_extra.safetensors: not a whole safetensors"),
    "newer format": (lambda f: rewrite(f / "kvlp.json", lambda a: a.update(format=99)), "format 99, expected 1"),
    "missing tensor": (
        lambda f: reweigh(f, lambda s: s.pop("logit_scale")),
        "lacks 1 tensors, the first 'logit_scale'",
    ),
    "unknown tensor": (
        lambda f: reweigh(f, lambda s: s.update(zzz=torch.zeros(1))),
        "has unknown 1 tensors, the first 'zzz'",
    ),
    "wrong shape": (lambda f: reweigh(f, widen), r"'visual.head.proj.weight' has shape \(7, 7\)"),
    "not a number": (lambda f: reweigh(f, spoil), "'visual.head.proj.weight' holds NaN"),
    "no model_cfg": (
        lambda f: rewrite(f / "open_clip_config.json", lambda c: c.pop("model_cfg")),
        "expected 'model_cfg'",
    ),
    "unknown key": (
        lambda f: rewrite(f / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(widht=1)),
        "widht",
    ),
    "wrong size": (
        lambda f: rewrite(f / "open_clip_config.json", lambda c: c["preprocess_cfg"].update(resize_mode="x")),
        "resize_mode",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_error_that_names_the_file(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff" * 8,
        (200_000_000).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}" + b"rest",
        (8).to_bytes(8, "little") + b'{"a":{}}',
    ],
)
def test_damaged_safetensors_headers(tiny_folder: Path, tmp_path: Path, header: bytes) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder)
    (folder / "kvlp.json").unlink()
    (folder / "open_clip_model.safetensors").write_bytes(header)
    with pytest.raises(CheckpointError, match=r"open_clip_model\.safetensors"):
        load(folder)


@pytest.mark.parametrize(
    "table",
    [
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}',
        '{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
    ],
)
def test_lying_safetensors_tables(tmp_path: Path, table: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(table).to_bytes(8, "little") + table.encode() + bytes(4))
    state: dict[str, torch.Tensor] = {}
    with pytest.raises(CheckpointError, match="not a whole safetensors"):
        state = kvlp.checkpoint_files.read_safetensors(path)
    assert not state


# --- names ------------------------------------------------------------------------------------------------------------


def test_unknown_names_say_what_is_possible(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="did you mean 'tiny'"):
        load(tiny_folder.parent / "tinny")
    with pytest.raises(CheckpointError, match=r"hf-hub:\.\.\."):
        load("clip-vit")
    with pytest.raises(CheckpointError, match="expected a model folder"):
        load(f"local-dir:{tmp_path}/none")
    with pytest.raises(CheckpointError, match=r"no model there; expected open_clip_config\.json"):
        load(tmp_path)


def test_local_dir_is_the_folder(tiny_folder: Path) -> None:
    assert load(f"local-dir:{tiny_folder}").hash == load(tiny_folder).hash


# --- writing ----------------------------------------------------------------------------------------------------------


def save_tiny(folder: Path, module: torch.nn.Module, cfg: Any, tokenizer: Any, **options: Any) -> Path:
    return save_checkpoint(folder, module, cfg, Preprocess(size=64).to_dict(), tokenizer, {}, **options)


def test_a_failed_write_leaves_the_old_folder(
    tiny_folder: Path,
    tiny_module: torch.nn.Module,
    tiny_cfg: Any,
    tiny_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    before = load(folder).hash

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kvlp.checkpoint_files._flush_one", full)
    with pytest.raises(OSError, match="No space left"):
        save_tiny(folder, tiny_module, tiny_cfg, tiny_tokenizer, half=True)
    assert load(folder).hash == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("exchange", [True, False])
def test_an_old_checkpoint_is_replaced(
    tiny_module: torch.nn.Module,
    tiny_cfg: Any,
    tiny_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exchange: bool,
) -> None:
    if not exchange:
        monkeypatch.setattr("kvlp.checkpoint_files.ctypes.CDLL", lambda _: object())
    folder = save_tiny(tmp_path / "model", tiny_module, tiny_cfg, tiny_tokenizer, extra={"a": torch.zeros(2)})
    save_tiny(folder, tiny_module, tiny_cfg, tiny_tokenizer)
    assert not load(folder).extra
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_peoples_folders_are_not_replaced(
    tiny_module: torch.nn.Module, tiny_cfg: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds other files"):
        save_tiny(tmp_path, tiny_module, tiny_cfg, tiny_tokenizer)
    with pytest.raises(CheckpointError, match="got a file"):
        save_tiny(tmp_path / "notes.txt", tiny_module, tiny_cfg, tiny_tokenizer)
    assert (tmp_path / "notes.txt").read_text() == "mine"
