"""Models that other libraries wrote: open_clip folders and names, transformers' CLIP and SigLIP, OpenAI's state dicts.

Each reader returns `Parts`; `kvlp.checkpoints.load` makes a Model of them. Only `from_hub` and an open_clip tag may use
the network, and only because the user named one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kvlp.checkpoint_files import read_json, read_safetensors, read_torch_file
from kvlp.errors import CheckpointError, ConfigError
from kvlp.models.dual_encoder import build_dual_encoder, padding_is_exact
from kvlp.models.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocess
from kvlp.tokenizers import TextTokenizer, open_clip_tokenizer

__all__ = [
    "CHEXZERO",
    "Parts",
    "from_hub",
    "from_open_clip_folder",
    "from_open_clip_name",
    "from_openai_file",
    "from_transformers_folder",
]

CONFIG = "open_clip_config.json"
#: in open_clip's own order of preference
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
)
#: CheXzero letterboxes to a square and normalises bytes by 101.48761 and 83.43944 (its zero_shot.py)
CHEXZERO: dict[str, Any] = {
    "mean": (101.48761 / 255,) * 3,
    "std": (83.43944 / 255,) * 3,
    "resize_mode": "longest",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model is made of, whoever wrote it."""

    module: nn.Module
    tokenizer: TextTokenizer
    preprocess: Preprocess
    model_cfg: dict[str, Any] = field(default_factory=dict)


def _why(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def from_open_clip_folder(folder: Path, *, online: bool = False) -> Parts:
    """Read a folder with `open_clip_config.json` and weights, as kvlp and open_clip write it."""
    config = read_json(folder / CONFIG)
    model_cfg, preprocess_cfg = config.get("model_cfg"), config.get("preprocess_cfg", {})
    if not isinstance(model_cfg, dict) or not isinstance(preprocess_cfg, dict):
        raise CheckpointError(f"{folder / CONFIG}: expected 'model_cfg' and 'preprocess_cfg'; copy the file again")
    path = next((folder / name for name in OPEN_CLIP_WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: no weights; expected {OPEN_CLIP_WEIGHTS[0]}; copy the whole folder again")
    model_cfg = _with_local_text_tower(model_cfg, folder, online=online)
    module = _build(model_cfg, folder / CONFIG)
    state = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    _fill(module, state, path)
    tokenizer = open_clip_tokenizer(model_cfg.get("text_cfg", {}), folder, trim=padding_is_exact(module))
    _require_vocabulary(module, tokenizer, folder)
    try:
        preprocess = _sized(Preprocess.from_dict(preprocess_cfg), module)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    return Parts(module, tokenizer, preprocess, model_cfg)


def _build(model_cfg: Mapping[str, Any], where: Path | str) -> nn.Module:
    try:
        return build_dual_encoder(model_cfg)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _sized(preprocess: Preprocess, module: nn.Module) -> Preprocess:
    """The input size that the image tower was built for, which open_clip trusts more than the file's."""
    size = getattr(getattr(module, "visual", None), "image_size", preprocess.size)
    return replace(preprocess, size=int(size[0] if isinstance(size, tuple | list) else size))


def _with_local_text_tower(model_cfg: Mapping[str, Any], folder: Path, *, online: bool) -> dict[str, Any]:
    """Point a transformers text tower at a folder on this machine: the checkpoint may have been moved since."""
    cfg = deepcopy(dict(model_cfg))
    text = cfg.get("text_cfg", {})
    name = text.get("hf_model_name")
    if not name:
        return cfg
    if (folder / "config.json").is_file():
        text["hf_model_name"] = str(folder)
    elif not (Path(name) / "config.json").is_file():
        text["hf_model_name"] = str(_hub_file(name, "config.json", online=online, why=folder).parent)
    return cfg


def _hub_file(repo: str, filename: str, *, online: bool, why: Path) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, filename, local_files_only=not online))
    except Exception as error:  # the hub's client raises many kinds
        raise CheckpointError(
            f"{why}: the text tower is {repo!r}, whose {filename} is not on this machine; put it into the folder"
        ) from error


def _fill(module: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load a state dict, all of it, in the forms that open_clip itself takes."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(module, state)
    state = {k: v for k, v in state.items() if not k.endswith("embeddings.position_ids")}
    if "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        if name in state and isinstance(getattr(module, name, None), torch.Tensor):
            state[name] = state[name].reshape(getattr(module, name).shape)
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(state))
    unknown = sorted(set(state) - set(wanted))
    if missing or unknown:
        kind, names = ("lacks", missing) if missing else ("has unknown", unknown)
        raise CheckpointError(
            f"{path}: the weights do not fit the configuration: {kind} {len(names)} tensors, the first {names[0]!r}; "
            "use the configuration that was saved with them"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{path}: the weights do not fit the configuration: {name!r} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(wanted[name].shape)}; use the configuration that was saved with them"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: the tensor {name!r} holds NaN or infinity; train or copy the model again")
    module.load_state_dict(state)


def _require_vocabulary(module: nn.Module, tokenizer: TextTokenizer, folder: Path) -> None:
    size = int(getattr(module, "vocab_size", 0) or 0)
    known = len(tokenizer.source) if tokenizer.source is not None else 0
    if size and known > size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {known} entries, the text tower {size}; "
            "copy the tokenizer saved with the model"
        )


def from_open_clip_name(name: str) -> Parts:
    """Read "NAME/TAG" or "NAME/FILE": one of open_clip's architectures, with released or the user's own weights."""
    import open_clip

    architecture, _, weights = name.partition("/")
    known = open_clip.list_models()
    if architecture not in known:
        near = ", ".join(get_close_matches(architecture, known, n=3, cutoff=0.4)) or "see open_clip.list_models()"
        raise CheckpointError(f"open_clip has no model {architecture!r}; did you mean: {near}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not weights:
        raise CheckpointError(
            f"open_clip:{architecture} needs weights: add /FILE or /TAG of {', '.join(tags) or 'none'}"
        )
    if weights in tags:
        return _released(architecture, weights)
    path = Path(weights).expanduser()
    if not path.exists():
        near = ", ".join(get_close_matches(weights, tags, n=3, cutoff=0.4)) or ", ".join(tags)
        raise CheckpointError(f"open_clip:{architecture}: {weights!r} is neither a file nor a tag; tags: {near}")
    return _own_weights(architecture, path)


def _own_weights(architecture: str, path: Path, settings: Mapping[str, Any] | None = None) -> Parts:
    import open_clip

    model_cfg = _with_local_text_tower(open_clip.get_model_config(architecture), path.parent, online=False)
    module = _build(model_cfg, f"open_clip:{architecture}")
    _fill(module, read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path), path)
    text = model_cfg["text_cfg"]
    folder = path.parent
    if text.get("hf_tokenizer_name") and not (folder / "tokenizer.json").is_file():
        folder = _hub_file(text["hf_tokenizer_name"], "tokenizer.json", online=False, why=path).parent
    tokenizer = open_clip_tokenizer(text, folder, trim=padding_is_exact(module))
    return Parts(module, tokenizer, _sized(Preprocess.from_dict(settings or {}), module), model_cfg)


def _released(architecture: str, tag: str) -> Parts:
    """A tag of open_clip's: taken from its cache, or downloaded because the user asked for it by name."""
    import open_clip
    from open_clip.pretrained import download_pretrained

    settings = open_clip.get_pretrained_cfg(architecture, tag)
    try:
        path = Path(download_pretrained(settings))
    except Exception as error:  # network, hub and cache errors of several libraries
        raise CheckpointError(
            f"open_clip:{architecture}/{tag} is not on this machine and cannot be downloaded ({_why(error)[:80]})"
        ) from error
    known = {key: value for key, value in settings.items() if value is not None}
    return _own_weights(architecture, path, known)


def from_hub(name: str) -> Parts:
    """Download (or take from the cache) "ORG/REPO" or "ORG/REPO@REVISION", then read it as a folder."""
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "open_clip_pytorch_model.bin"]
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises many kinds
        raise CheckpointError(
            f"hf-hub:{name} is not on this machine and cannot be downloaded ({type(error).__name__}); "
            "check the name and the network, or load a local folder"
        ) from error
    if (folder / CONFIG).is_file():
        return from_open_clip_folder(folder, online=True)
    return from_transformers_folder(folder)


class TransformersDualEncoder(nn.Module):
    """A transformers CLIP or SigLIP model behind open_clip's method names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.logit_scale: nn.Parameter = model.logit_scale  # type: ignore[assignment]
        self.logit_bias: nn.Parameter | None = getattr(model, "logit_bias", None)

    def encode_image(self, image: torch.Tensor, normalize: bool = False) -> torch.Tensor:  # noqa: FBT001
        """Embed pixels (N, 3, S, S)."""
        return _features(self.model.get_image_features(pixel_values=image), normalize=normalize)  # type: ignore[operator]

    def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:  # noqa: FBT001
        """Embed token ids (N, L). No mask is needed: CLIP is causal, SigLIP reads its padding."""
        return _features(self.model.get_text_features(input_ids=text), normalize=normalize)  # type: ignore[operator]


def _features(output: Any, *, normalize: bool) -> torch.Tensor:
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return nn.functional.normalize(features, dim=-1) if normalize else features


def from_transformers_folder(folder: Path) -> Parts:
    """Read a folder that transformers wrote for a CLIP or SigLIP model: weights, tokenizer, image processor."""
    import transformers

    kind = str(read_json(folder / "config.json").get("model_type"))
    classes: dict[str, Any] = {"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}
    if kind not in classes:
        raise CheckpointError(f"{folder}: expected a transformers model of type clip or siglip, got {kind!r}")
    try:
        with _quiet_transformers():
            model, info = classes[kind].from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises whatever its parsers raise
        raise CheckpointError(
            f"{folder}: transformers cannot load it ({type(error).__name__}: {_why(error)})"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(f"{folder}: the weights lack {len(missing)} tensors, the first {missing[0]!r}")
    tokenizer = _transformers_tokenizer(folder, model.config.text_config.max_position_embeddings, kind)
    return Parts(TransformersDualEncoder(model), tokenizer, _transformers_preprocess(folder))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bars and remarks on other people's configurations."""
    from transformers.utils import logging as remarks

    level, bars = remarks.get_verbosity(), remarks.is_progress_bar_enabled()
    remarks.set_verbosity_error()
    remarks.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        remarks.set_verbosity(level)
        if bars:
            remarks.enable_progress_bar()


def _transformers_tokenizer(folder: Path, most: int, kind: str) -> TextTokenizer:
    from transformers import AutoTokenizer

    try:
        words = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be read ({type(error).__name__}); copy it again"
        ) from error
    length = min(int(words.model_max_length), int(most))

    def encode(texts: list[str]) -> torch.Tensor:
        out = words(texts, return_tensors="pt", padding="max_length", truncation=True, max_length=length)
        return out.input_ids

    pad_id = int(words.pad_token_id)
    # SigLIP was trained on padded texts and reads the last position
    return TextTokenizer(
        encode,
        context_length=length,
        pad_id=pad_id,
        trim=kind == "clip",
        pad_ends_text=pad_id == words.eos_token_id,
        source=words,
    )


def _transformers_preprocess(folder: Path) -> Preprocess:
    path = next(
        (p for p in (folder / "preprocessor_config.json", folder / "processor_config.json") if p.is_file()), None
    )
    if path is None:
        raise CheckpointError(f"{folder}: no preprocessor_config.json; copy the image processor's file into the folder")
    values = read_json(path)
    values = values.get("image_processor", values)
    side, square = _input_side(values, path)
    normalise = values.get("do_normalize", True)
    return Preprocess(
        size=side,
        mean=tuple(values.get("image_mean", OPENAI_MEAN)) if normalise else (0.0,) * 3,
        std=tuple(values.get("image_std", OPENAI_STD)) if normalise else (1.0,) * 3,
        interpolation={2: "bilinear", 0: "nearest"}.get(values.get("resample", 3), "bicubic"),
        resize_mode="squash" if square else "shortest",
        floor_crop=True,
    )


def _input_side(values: Mapping[str, Any], path: Path) -> tuple[int, bool]:
    """The side of the input, and whether pictures are squashed to it rather than cut."""
    size = values.get("size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else size
    if isinstance(size.get("height"), int) and size["height"] == size.get("width"):
        return int(size["height"]), True
    crop = values.get("crop_size", size.get("shortest_edge"))
    crop = crop.get("height") if isinstance(crop, dict) else crop
    if not isinstance(crop, int) or crop != size.get("shortest_edge"):
        raise CheckpointError(
            f"{path}: expected a square size, or a shortest edge equal to the crop, got {size}, {crop}"
        )
    return crop, False


def from_openai_file(path: Path, settings: Mapping[str, Any] | None = None) -> Parts:
    """Read a state dict with OpenAI CLIP's names (`visual.conv1.weight`, ...), as CheXzero and many others save it.

    Args:
        path: .pt, .pth, .bin or .safetensors.
        settings: preprocessing, by open_clip's names; OpenAI's by default.
    """
    state = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    for name in ("input_resolution", "context_length", "vocab_size"):
        state.pop(name, None)
    model_cfg = _openai_config(state, path)
    module = _build(model_cfg, path)
    _fill(module, state, path)
    tokenizer = open_clip_tokenizer(model_cfg["text_cfg"], None, trim=True)
    preprocess = _sized(Preprocess.from_dict(settings or {}), module)
    return Parts(module, tokenizer, preprocess, model_cfg)


def _openai_config(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, Any]:
    """Read the shape of a model off its weights, as OpenAI's own loader does (head width 64, QuickGELU)."""
    try:
        text_width = state["ln_final.weight"].shape[0]
        return {
            "embed_dim": state["text_projection"].shape[1],
            "quick_gelu": True,
            "custom_text": True,
            "vision_cfg": _openai_vision(state),
            "text_cfg": {
                "context_length": state["positional_embedding"].shape[0],
                "vocab_size": state["token_embedding.weight"].shape[0],
                "width": text_width,
                "heads": max(1, text_width // 64),
                "layers": _blocks(state, "transformer.resblocks."),
            },
        }
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"{path}: expected weights named as OpenAI's CLIP names them, missing {_why(error)}; "
            "give an open_clip model's file as open_clip:NAME/FILE, or a folder with its configuration"
        ) from error


def _openai_vision(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    if "visual.proj" in state:
        width, _, _, patch = state["visual.conv1.weight"].shape
        grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        layers = _blocks(state, "visual.transformer.resblocks.")
        return {"layers": layers, "width": width, "patch_size": patch, "image_size": patch * grid}
    grid = round((state["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "layers": [_blocks(state, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)],
        "width": state["visual.layer1.0.conv1.weight"].shape[0],
        "image_size": grid * 32,
    }


def _blocks(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
