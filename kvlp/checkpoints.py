"""Model folders: save one, load anyone's.

A folder holds one set of weights (`open_clip_config.json`, `open_clip_model.safetensors`), the tokenizer's files,
`kvlp.json` (where the model comes from) and a model card; plain open_clip loads it as `local-dir:`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kvlp import __version__
from kvlp.checkpoint_files import file_sha256, new_folder, read_json, read_safetensors, write_json, write_safetensors
from kvlp.errors import CheckpointError, KvlpError, ShapeError
from kvlp.foreign_weights import (
    CHEXZERO,
    Parts,
    from_hub,
    from_open_clip_folder,
    from_open_clip_name,
    from_openai_file,
    from_transformers_folder,
)
from kvlp.models.dual_encoder import padding_is_exact
from kvlp.models.preprocess import Preprocess, as_grey_uint8
from kvlp.tokenizers import TextTokenizer
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kvlp.checkpoint_decoder import ReportWriter
    from kvlp.checkpoint_query import QueryScorer

__all__ = ["FORMAT", "Model", "load", "model_card", "save_checkpoint", "shipped"]

#: version of the folder's layout
FORMAT = 1
CONFIG, WEIGHTS, ABOUT = "open_clip_config.json", "open_clip_model.safetensors", "kvlp.json"
EXTRA, EXPOSURE, CARD = "kvlp_extra.safetensors", "exposure.arrow", "README.md"


class Model:
    """A dual encoder ready for use: images and texts in, unit vectors out.

    Attributes:
        module: the torch module, with `encode_image(pixels)`, `encode_text(ids)` and `logit_scale` (a logarithm).
        tokenizer: texts to token ids.
        preprocess: one image to the module's input, float32 (3, S, S).
        model_cfg: open_clip's `model_cfg`, empty for other libraries' models.
        card: what is known of the model: training data, named concepts, licence, figures.
        extra: further tensors of the checkpoint, by name.
        source: what it was loaded from.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: TextTokenizer,
        preprocess: Preprocess,
        *,
        model_cfg: Mapping[str, Any] | None = None,
        card: Mapping[str, Any] | None = None,
        extra: Mapping[str, torch.Tensor] | None = None,
        source: str = "",
    ) -> None:
        self.module = module.eval()
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.model_cfg = dict(model_cfg or {})
        self.card = dict(card or {})
        self.extra = dict(extra or {})
        self.source = source

    def __repr__(self) -> str:
        return f"Model({self.source!r}, dim={self.dim}, image_size={self.image_size})"

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.preprocess.size

    @property
    def preprocess_cfg(self) -> dict[str, Any]:
        """open_clip's `preprocess_cfg`."""
        return self.preprocess.to_dict()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def licence(self) -> str:
        """The licence that the card names, or ""."""
        return str(self.card.get("licence", ""))

    @property
    def logit_scale(self) -> float:
        """Factor of a cosine to a logit, as learned (not its logarithm)."""
        return float(self.module.logit_scale.detach().exp())  # type: ignore[operator]

    @property
    def logit_bias(self) -> float:
        """What is added to a logit, as learned (SigLIP); 0 for models without it."""
        bias = getattr(self.module, "logit_bias", None)
        return 0.0 if bias is None else float(bias.detach())

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.encode_text(["a"]).shape[1])

    @cached_property
    def hash(self) -> str:
        """sha256 over weights, model and preprocessing settings and vocabulary: equal models, equal hash."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        about = {
            "model": _without_paths(self.model_cfg),
            "preprocess": self.preprocess_cfg,
            "words": self._vocabulary(),
        }
        digest.update(json.dumps(about, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def _vocabulary(self) -> dict[str, int]:
        source = self.tokenizer.source
        return dict(sorted(source.get_vocab().items())) if source is not None else {}

    @cached_property
    def query(self) -> QueryScorer:
        """The query network as a scorer of its own, with the same contract `score(images, prompts)`.

        Raises:
            CheckpointError: the model was trained without one, or its tensors are damaged.
        """
        from kvlp.checkpoint_query import QueryScorer

        return QueryScorer(self)

    @cached_property
    def decoder(self) -> ReportWriter:
        """The decoder of reports: `model.decoder.generate(images)`.

        Raises:
            CheckpointError: the model was trained without one, or its tensors are damaged.
        """
        from kvlp.checkpoint_decoder import ReportWriter

        return ReportWriter(self)

    def encode_image(self, images: Sequence[object] | NDArray[Any], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Embed images.

        Args:
            images: grey arrays (H, W) or colour arrays (H, W, 3), uint8 or floats in [0, 1]; PIL images; or tensors.
                Sizes may differ. Read files with kvlp.datasets.images first.
            batch_size: images that go through the network at once.

        Returns:
            float32 (N, D), each row of length 1.

        Raises:
            ImageError, ShapeError: an image is not one of these; the message names its position.
        """
        _require_sequence(images)
        parts = []
        for start in range(0, len(images), batch_size):
            parts.append(self.encode_pixels(self.pixels(images, start, start + batch_size)))
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def pixels(self, images: Sequence[object] | NDArray[Any], start: int, stop: int) -> torch.Tensor:
        """What the image tower sees of images[start:stop]: float (n, 3, S, S). Raises as `encode_image`."""
        squares = [self._fit(images[i], i) for i in range(start, min(stop, len(images)))]
        return self.preprocess.normalise(np.stack(squares))

    def _fit(self, image: object, position: int) -> NDArray[np.uint8]:
        try:
            return self.preprocess.fit(as_grey_uint8(image))
        except KvlpError as error:
            raise type(error)(f"image {position}: {error}") from error

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """Embed what `preprocess` returned, stacked: float (N, 3, S, S) -> float32 (N, D), rows of length 1."""
        size = self.image_size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ShapeError(f"encode_pixels: expected (N, 3, {size}, {size}), got {tuple(pixels.shape)}")
        return _unit(self.module.encode_image(pixels.to(self.device)))  # type: ignore[operator]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> NDArray[np.float32]:
        """Embed texts: float32 (N, D), each row of length 1."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        if not rows:
            return np.zeros((0, self.dim), np.float32)
        parts = []
        for start in range(0, len(rows), batch_size):
            ids = self.tokenizer(rows[start : start + batch_size])
            parts.append(_unit(self.module.encode_text(ids.to(self.device))))  # type: ignore[operator]
        return np.concatenate(parts)

    def score(self, images: Sequence[object], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of every image with every prompt: float32 (N, C)."""
        return self.encode_image(images) @ self.encode_text(prompts).T


def _require_sequence(images: object) -> None:
    if (
        isinstance(images, str | bytes | Mapping)
        or not hasattr(images, "__len__")
        or not hasattr(images, "__getitem__")
    ):
        raise ShapeError(f"encode_image: expected a list of images, got {type(images).__name__}; put it into a list")
    if getattr(images, "ndim", 3) < 3:
        raise ShapeError("encode_image: expected a list of images, got one array (H, W); put it into a list")


def _unit(features: torch.Tensor) -> NDArray[np.float32]:
    return nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def _without_paths(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the names of folders, which change when a checkpoint is moved."""
    cfg = deepcopy(dict(model_cfg))
    for key in ("hf_model_name", "hf_tokenizer_name", "hf_model_pretrained"):
        cfg.get("text_cfg", {}).pop(key, None)
    cfg.get("vision_cfg", {}).pop("timm_model_pretrained", None)
    cfg.pop("custom_text", None)
    return cfg


def save_checkpoint(  # noqa: PLR0913 - what a folder holds, one argument each
    folder: PathLike,
    module: nn.Module,
    model_cfg: Mapping[str, Any],
    preprocess_cfg: Mapping[str, Any],
    tokenizer: TextTokenizer | PreTrainedTokenizerBase,
    card: Mapping[str, Any],
    *,
    exposure: Iterable[str] | None = None,
    extra: Mapping[str, torch.Tensor] | None = None,
    half: bool = False,
) -> Path:
    """Write a model folder, all at once: a crash leaves the old folder or the new one.

    Args:
        folder: where to; an older checkpoint there is replaced, anything else is refused.
        module: a dual encoder from `build_dual_encoder`.
        model_cfg: the open_clip configuration it was built from.
        preprocess_cfg: open_clip's `preprocess_cfg`.
        tokenizer: the one it was trained with.
        card: JSON values about the model. Known keys: name, description, licence, named_concepts (concept ids or names
            that training texts named), data, graph_hash, recipe, seed, figures, limits, not_for.
        exposure: hashes of the images it was trained on, written to `exposure.arrow`.
        extra: further tensors, written to `kvlp_extra.safetensors`.
        half: store the weights as float16; they are loaded into float32.

    Returns:
        The folder, as an absolute path.
    """
    target = Path(folder).absolute()
    settings = Preprocess.from_dict(preprocess_cfg)
    words = TextTokenizer.wrap(tokenizer, context_length=_context_length(model_cfg), trim=padding_is_exact(module))
    _require_same_padding(module, words)
    with new_folder(target) as scratch:
        cfg = _portable_config(model_cfg, module, target)
        write_json(scratch / CONFIG, {"model_cfg": cfg, "preprocess_cfg": settings.to_dict()})
        write_safetensors(scratch / WEIGHTS, module.state_dict(), torch.float16 if half else None)
        words.save(scratch)
        _write_text_config(module, scratch)
        if extra:
            write_safetensors(scratch / EXTRA, extra)
        if exposure is not None:
            _write_exposure(scratch / EXPOSURE, exposure)
        about = {
            "format": FORMAT,
            "kvlp_version": __version__,
            "versions": _versions(),
            "weights_sha256": file_sha256(scratch / WEIGHTS),
            "card": dict(card),
        }
        write_json(scratch / ABOUT, about)
        (scratch / CARD).write_text(model_card(card, cfg, settings), encoding="utf-8")
    return target


def _context_length(model_cfg: Mapping[str, Any]) -> int:
    return int(model_cfg.get("text_cfg", {}).get("context_length", 77))


def _require_same_padding(module: nn.Module, words: TextTokenizer) -> None:
    config = getattr(getattr(module, "text", None), "config", None)
    if config is not None and config.pad_token_id != words.pad_id:
        raise CheckpointError(
            f"the tokenizer pads with id {words.pad_id}, the text tower expects {config.pad_token_id}; "
            "its padding would be read as words"
        )


def _portable_config(model_cfg: Mapping[str, Any], module: nn.Module, target: Path) -> dict[str, Any]:
    cfg = deepcopy(dict(model_cfg))
    cfg["custom_text"] = True
    if hasattr(getattr(module, "text", None), "config"):
        cfg["text_cfg"]["hf_model_name"] = str(target)
        cfg["text_cfg"]["hf_model_pretrained"] = False
        cfg["text_cfg"].pop("hf_config", None)  # stands in the folder's config.json
    if cfg["text_cfg"].get("hf_tokenizer_name"):
        cfg["text_cfg"]["hf_tokenizer_name"] = "tokenizer"
    return cfg


def _write_text_config(module: nn.Module, folder: Path) -> None:
    config = getattr(getattr(module, "text", None), "config", None)
    if config is not None:
        config.save_pretrained(str(folder))


def _write_exposure(path: Path, hashes: Iterable[str]) -> None:
    import pyarrow as pa

    table = pa.table({"sha256": pa.array(sorted(set(hashes)), pa.string())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "open_clip_torch", "timm", "transformers")}


def model_card(card: Mapping[str, Any], model_cfg: Mapping[str, Any], settings: Preprocess) -> str:
    """Write the model card's text from what is known of the model."""
    head = ["---", "library_name: open_clip", "tags: [kvlp, chest-radiograph]"]
    if card.get("licence"):
        head.append(f"license: {json.dumps(str(card['licence']))}")
    lines = [*head, "---", "", f"# {card.get('name', 'kvlp model')}", ""]
    lines.append(str(card.get("description", "A dual encoder of images and texts, trained with kvlp.")))
    lines += ["", "For research. Not a medical device; its scores are no diagnosis.", "", "## Use", "", "```python"]
    lines += ["import kvlp", 'model = kvlp.load("this folder")', "# or, without kvlp:"]
    lines += ['# open_clip.create_model_from_pretrained("local-dir:this folder")', "```", "", "## Settings", ""]
    lines += [f"- input: {settings.size} x {settings.size} px, resize mode {settings.resize_mode}"]
    lines += [f"- embedding: {model_cfg.get('embed_dim')} numbers"]
    for key, value in card.items():
        if key not in ("name", "description", "named_concepts"):
            text = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False, default=str)
            lines.append(f"- {key.replace('_', ' ')}: {str(text)[:500]}")
    named = card.get("named_concepts") or ()
    lines += ["", "## Concepts named in the training texts", "", ", ".join(map(str, named)) or "not known", ""]
    lines.append("Scores for these are prompted classification, scores for others zero-shot.")
    return "\n".join(lines) + "\n"


def load(name_or_path: PathLike, device: str = "cpu", *, preprocess: Mapping[str, Any] | None = None) -> Model:
    """Load a model by name or path. Only `hf-hub:` and an open_clip tag may use the network.

    Args:
        name_or_path: a folder that kvlp, open_clip or transformers (CLIP, SigLIP) wrote; a file of OpenAI-CLIP-style
            weights; "phantom-tiny" (shipped with kvlp); "local-dir:FOLDER"; "open_clip:NAME/TAG";
            "open_clip:NAME/FILE"; "hf-hub:ORG/REPO"; "openai:FILE"; or "chexzero:FILE" (CheXzero's preprocessing).
        device: torch device.
        preprocess: settings that replace the checkpoint's own, by open_clip's names (mean, std, resize_mode, ...).

    Raises:
        CheckpointError: not found, not whole, or of another kind; the message says which file and what to do.
    """
    name = str(name_or_path)
    scheme, _, rest = name.partition(":")
    if scheme in _SCHEMES and rest:
        model = _SCHEMES[scheme](rest)
    else:
        model = _load_path(name)
    if preprocess:
        model.preprocess = Preprocess.from_dict({**asdict(model.preprocess), **preprocess})
    model.module.to(device)
    return model


def _load_path(name: str) -> Model:
    path = Path(name).expanduser()
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        return _of(from_openai_file(path), name)
    if name in shipped():
        return _load_folder(_SHIPPED / name)
    raise CheckpointError(f"no model {name!r}: {_possible(name)}")


def shipped() -> list[str]:
    """Names of the models that come with kvlp."""
    return sorted(path.name for path in _SHIPPED.glob("*") if (path / ABOUT).is_file())


def _possible(name: str) -> str:
    from difflib import get_close_matches

    nearby = [p.name for p in Path(name).absolute().parent.glob("*")] if Path(name).absolute().parent.is_dir() else []
    near = get_close_matches(name, shipped()) or get_close_matches(Path(name).name, nearby)
    hint = f"did you mean {near[0]!r}? " if near else ""
    schemes = ", ".join(f"{scheme}:..." for scheme in _SCHEMES)
    return f"{hint}expected a folder, a file of weights, one of {shipped()}, or {schemes}"


def _load_folder(folder: Path) -> Model:
    """Load a folder that kvlp, open_clip or transformers wrote."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a model folder; check the path")
    if (folder / ABOUT).is_file() and not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder / CONFIG}: missing; copy the whole checkpoint folder again")
    if not (folder / CONFIG).is_file():
        if (folder / "config.json").is_file():
            return _of(from_transformers_folder(folder), str(folder))
        raise CheckpointError(
            f"{folder}: no model there; expected {CONFIG} (kvlp, open_clip) or config.json (transformers)"
        )
    about = _about(folder)
    extra = read_safetensors(folder / EXTRA) if (folder / EXTRA).is_file() else {}
    return _of(from_open_clip_folder(folder), str(folder), card=about.get("card", {}), extra=extra)


def _about(folder: Path) -> dict[str, Any]:
    """Read kvlp.json, if there is one, and check the weights against it."""
    if not (folder / ABOUT).is_file():
        return {}
    about = read_json(folder / ABOUT)
    if about.get("format") != FORMAT:
        raise CheckpointError(f"{folder / ABOUT}: format {about.get('format')!r}, expected {FORMAT}; update kvlp")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{weights}: missing; copy the whole checkpoint folder again")
    if file_sha256(weights) != about.get("weights_sha256"):
        raise CheckpointError(f"{weights}: its sha256 is not the one in {ABOUT}: damaged or exchanged; copy it again")
    return about


def _of(parts: Parts, source: str, **known: Any) -> Model:
    return Model(parts.module, parts.tokenizer, parts.preprocess, model_cfg=parts.model_cfg, source=source, **known)


_SHIPPED = Path(__file__).parent / "pretrained"
_SCHEMES: dict[str, Callable[[str], Model]] = {
    "local-dir": lambda rest: _load_folder(Path(rest).expanduser()),
    "open_clip": lambda rest: _of(from_open_clip_name(rest), f"open_clip:{rest}"),
    "hf-hub": lambda rest: _of(from_hub(rest), f"hf-hub:{rest}"),
    "openai": lambda rest: _of(from_openai_file(Path(rest).expanduser()), f"openai:{rest}"),
    "chexzero": lambda rest: _of(from_openai_file(Path(rest).expanduser(), CHEXZERO), f"chexzero:{rest}"),
}
