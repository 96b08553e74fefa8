"""Other libraries' models: each is written by the test in its own format and must give the original's outputs."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from open_clip.openai import load_openai_model
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from kvlp.checkpoints import load
from kvlp.errors import CheckpointError
from kvlp.models.preprocess import OPENAI_MEAN, OPENAI_STD

TEXTS = ["There is a small left pleural effusion.", "no pneumothorax", "Heart SIZE is normal"]
VIT: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 64, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


def unit(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features, dim=-1).detach().numpy()


def as_pil(pictures: list[np.ndarray]) -> list[Image.Image]:
    return [Image.fromarray(picture).convert("RGB") for picture in pictures]


# --- open_clip --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as open_clip writes it for its plain CLIP class: no tokenizer files, no kvlp.json."""
    folder = tmp_path_factory.mktemp("open_clip")
    torch.manual_seed(0)
    save_file(CLIP(**VIT).state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD), "interpolation": "bicubic"}
    config = {"model_cfg": VIT, "preprocess_cfg": {**preprocess, "resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_open_clip_folder(open_clip_folder: Path, pictures: list[np.ndarray]) -> None:
    theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{open_clip_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")
    with torch.no_grad():
        image = theirs.eval().encode_image(torch.stack([preprocess(p) for p in as_pil(pictures)]), normalize=True)
        text = theirs.encode_text(tokenizer(TEXTS), normalize=True)
    for name in (open_clip_folder, f"local-dir:{open_clip_folder}"):
        ours = load(name)
        np.testing.assert_allclose(ours.encode_image(pictures), image.numpy(), atol=1e-5)
        np.testing.assert_allclose(ours.encode_text(TEXTS), text.numpy(), atol=1e-5)
    assert ours.card == {}
    assert ours.tokenizer(TEXTS).shape[1] < 20, "short texts are not padded to 77"


def test_open_clip_name_with_the_users_file(tmp_path: Path, pictures: list[np.ndarray], monkeypatch: Any) -> None:
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"small-clip": VIT})
    monkeypatch.setattr(open_clip, "list_models", lambda: ["small-clip"])
    torch.manual_seed(2)
    original = CLIP(**VIT).eval()
    # as open_clip's trainer saves it: wrapped by DDP, beside the epoch
    state = {f"module.{name}": tensor for name, tensor in original.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "epoch_3.pt")
    ours = load(f"open_clip:small-clip/{tmp_path}/epoch_3.pt")
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    with torch.no_grad():
        image = original.encode_image(torch.stack([transform(p) for p in as_pil(pictures)]))
        text = original.encode_text(open_clip.tokenize(TEXTS))
    np.testing.assert_allclose(ours.encode_image(pictures), unit(image), atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(TEXTS), unit(text), atol=1e-5)


def test_open_clip_names_are_checked() -> None:
    with pytest.raises(CheckpointError, match="did you mean: ViT-B-32"):
        load("open_clip:ViT-B32/laion2b_s34b_b79k")
    with pytest.raises(CheckpointError, match=r"needs weights: .*laion2b_s34b_b79k"):
        load("open_clip:ViT-B-32")
    with pytest.raises(CheckpointError, match=r"neither a file nor a tag; tags: laion2b_s34b_b79k"):
        load("open_clip:ViT-B-32/laion2b_s34b_b79")


def test_what_is_not_here_is_one_line_without_a_network() -> None:
    with pytest.raises(CheckpointError, match="not on this machine and cannot be downloaded"):
        load("hf-hub:kvlp-nobody/no-such-model")
    with pytest.raises(CheckpointError, match="not on this machine and cannot be downloaded"):
        load("open_clip:ViT-B-32/laion2b_s34b_b79k")


# --- transformers -----------------------------------------------------------------------------------------------------


def towers(tokenizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"eos_token_id": tokenizer.sep_token_id, "bos_token_id": tokenizer.cls_token_id, "pad_token_id": 0}
    text = {**shape, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 24}
    return text, {**shape, "image_size": 32, "patch_size": 8}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    text, vision = towers(tiny_tokenizer)
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    text, vision = towers(tiny_tokenizer)
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_transformers_folder(kind: str, pictures: list[np.ndarray], request: pytest.FixtureRequest) -> None:
    import transformers

    folder = request.getfixturevalue(f"{kind}_folder")
    classes = {
        "clip": (transformers.CLIPModel, transformers.CLIPImageProcessorPil),
        "siglip": (transformers.SiglipModel, transformers.SiglipImageProcessorPil),
    }
    model, processor = (cls.from_pretrained(folder) for cls in classes[kind])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = processor(as_pil(pictures), return_tensors="pt")["pixel_values"]
    words = tokenizer(TEXTS, padding="max_length", max_length=24, truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = model.eval()(input_ids=words["input_ids"], pixel_values=pixels)
    ours = load(folder)
    np.testing.assert_allclose(ours.encode_image(pictures), unit(out.image_embeds), atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(TEXTS), unit(out.text_embeds), atol=1e-5)
    assert ours.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
    assert (ours.tokenizer(["a"]).shape[1] == 24) == (kind == "siglip"), "SigLIP reads its padding"


def test_a_transformers_folder_of_another_kind_is_named(tmp_path: Path, clip_folder: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "copy")
    config = json.loads((clip_folder / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(CheckpointError, match="of type clip or siglip, got 'bert'"):
        load(tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "transformers cannot load it"),
        ("preprocessor_config.json", "no preprocessor_config.json"),
        ("tokenizer.json", "tokenizer cannot be read"),
    ],
)
def test_a_transformers_folder_that_lacks_a_file(tmp_path: Path, clip_folder: Path, name: str, message: str) -> None:
    shutil.copytree(clip_folder, tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_a_transformers_folder_that_lacks_weights(tmp_path: Path, clip_folder: Path) -> None:
    from safetensors.torch import load_file

    shutil.copytree(clip_folder, tmp_path / "copy")
    state = load_file(clip_folder / "model.safetensors")
    state.pop("text_projection.weight")
    save_file(state, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack 1 tensors, the first 'text_projection.weight'"):
        load(tmp_path / "copy")


# --- OpenAI, CheXzero -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openai_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return CLIP(**VIT, quick_gelu=True).state_dict()


def openai_forms(state: dict[str, torch.Tensor], folder: Path) -> dict[str, Path]:
    """The same weights as different projects save them."""
    extras = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    torch.save({**state, **extras}, folder / "openai.pt")
    torch.save(state, folder / "chexzero.pt")
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 2}, folder / "wrapped.pth")
    save_file({**state, "text.transformer.embeddings.position_ids": torch.arange(4)}, folder / "plain.safetensors")
    return {path.stem: path for path in folder.iterdir()}


def test_openai_state_dicts(openai_state: Any, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    forms = openai_forms(openai_state, tmp_path)
    original = load_openai_model(str(forms["chexzero"]), precision="fp32")
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    with torch.no_grad():
        image = unit(original.encode_image(torch.stack([transform(p) for p in as_pil(pictures)])))
        text = unit(original.encode_text(open_clip.tokenize(TEXTS)))
    # load_openai_model casts through float16
    for name in [*forms.values(), f"openai:{forms['openai']}"]:
        ours = load(name)
        np.testing.assert_allclose(ours.encode_image(pictures), image, atol=2e-3)
        np.testing.assert_allclose(ours.encode_text(TEXTS), text, atol=2e-3)


def test_openai_state_dict_to_1e_5(openai_state: Any, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    """Through float16 once, as OpenAI's own files are, so that the original's cast changes nothing."""
    linear = {k: v.half().float() for k, v in openai_state.items()}
    torch.save(linear, tmp_path / "clip.pt")
    original = load_openai_model(str(tmp_path / "clip.pt"), precision="fp32")
    transform = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    ours = load(tmp_path / "clip.pt")
    with torch.no_grad():
        image = original.encode_image(torch.stack([transform(p) for p in as_pil(pictures)]))
        text = original.encode_text(open_clip.tokenize(TEXTS))
    np.testing.assert_allclose(ours.encode_image(pictures), unit(image), atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(TEXTS), unit(text), atol=1e-5)


def test_chexzero_normalises_as_it_was_trained(openai_state: Any, tmp_path: Path) -> None:
    torch.save(openai_state, tmp_path / "best.pt")
    model = load(f"chexzero:{tmp_path}/best.pt")
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    expected = (torch.from_numpy(grey).float() - 101.48761) / 83.43944
    torch.testing.assert_close(model.preprocess(grey), expected.expand(3, 32, 32), rtol=0, atol=1e-5)
    wide = np.full((16, 32), 255, np.uint8)
    assert model.preprocess(wide)[0, 0, 0] == pytest.approx(-101.48761 / 83.43944, abs=1e-5), "padded with black"


def test_a_modified_resnet_is_read_too(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    cfg = {**VIT, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 32}}
    cfg["vision_cfg"]["head_width"] = 64
    torch.manual_seed(0)
    original = CLIP(**cfg, quick_gelu=True).eval()
    torch.save(original.state_dict(), tmp_path / "rn.pt")
    ours = load(tmp_path / "rn.pt")
    pixels = torch.stack([ours.preprocess(p) for p in pictures])
    with torch.no_grad():
        np.testing.assert_allclose(ours.encode_pixels(pixels), unit(original.encode_image(pixels)), atol=1e-5)


def test_weights_of_another_kind_are_named(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"as OpenAI's CLIP names them, missing 'ln_final.weight'"):
        load(tmp_path / "other.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    with pytest.raises(CheckpointError, match="expected a state dict of tensors, got Tensor"):
        load(tmp_path / "tensor.pt")
    for name, content in {"empty.pt": b"", "text.pt": b"not weights", "empty.safetensors": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            load(tmp_path / name)


def test_torchscript_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "scripted.pt"))
    with pytest.raises(CheckpointError, match=r"TorchScript archive, which holds code; .*state_dict"):
        load(tmp_path / "scripted.pt")


# --- hostile files ----------------------------------------------------------------------------------------------------


class Canary:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "sang"))


def test_no_pickle_runs(tmp_path: Path, open_clip_folder: Path, clip_folder: Path) -> None:
    canary = tmp_path / "canary"
    bird = Canary(canary)
    loose = tmp_path / "weights.pt"
    torch.save({"state_dict": bird}, loose)
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(bird))
    theirs = tmp_path / "open_clip"
    shutil.copytree(open_clip_folder, theirs)
    (theirs / "open_clip_model.safetensors").unlink()
    torch.save({"a": bird}, theirs / "open_clip_pytorch_model.bin")
    hugging = tmp_path / "clip"
    shutil.copytree(clip_folder, hugging)
    (hugging / "model.safetensors").unlink()
    torch.save({"a": bird}, hugging / "pytorch_model.bin")
    for target in (loose, tmp_path / "weights.pth", theirs, hugging):
        with pytest.raises(CheckpointError):
            load(target)
    assert not canary.exists()
    with loose.open("rb"):
        torch.load(loose, weights_only=False)
    assert canary.exists(), "the canary itself works"


def plant_code(folder: Path, name: str) -> Path:
    """Add a Python file that says so when it is imported, and let the JSON file point at it."""
    canary = folder / "sang"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    path = folder / name
    config = json.loads(path.read_text())
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModel", "AutoProcessor"), "evil.Evil")
    config["auto_map"]["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]
    path.write_text(json.dumps(config))
    return canary


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_no_code_of_a_transformers_folder_runs(tmp_path: Path, clip_folder: Path, name: str) -> None:
    shutil.copytree(clip_folder, tmp_path / "copy")
    canary = plant_code(tmp_path / "copy", name)
    load(tmp_path / "copy")
    assert not canary.exists()


def test_a_configuration_cannot_name_a_foreign_kernel(tmp_path: Path, clip_folder: Path) -> None:
    """CVE-2026-4372: `_attn_implementation_internal` once fetched code from the hub. Here nothing may be fetched."""
    shutil.copytree(clip_folder, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "_attn_implementation_internal": "kvlp-nobody/kernel"}))
    try:
        load(tmp_path / "copy")
    except CheckpointError as error:
        assert "transformers cannot load it" in str(error)  # noqa: PT017 - either outcome is safe


def test_a_configuration_cannot_switch_remote_code_on(tmp_path: Path, tiny_folder: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder)
    canary = plant_code(folder, "tokenizer_config.json")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True, "clean": "whitespace"}
    path.write_text(json.dumps(config))
    load(folder)
    assert not canary.exists()
