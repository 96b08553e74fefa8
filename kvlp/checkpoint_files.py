"""The files of a checkpoint folder: written all at once, read with one clear error each, never running their code."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = [
    "file_sha256",
    "new_folder",
    "read_exposure",
    "read_json",
    "read_safetensors",
    "read_torch_file",
    "write_json",
    "write_safetensors",
]

#: bytes of a safetensors header; the library refuses longer ones
_MOST_HEADER = 100_000_000
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: missing, a directory, not UTF-8, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: expected a JSON file ({error.strerror}); copy the folder again") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON; copy the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, keys in the order given."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        CheckpointError: missing, truncated, or not safetensors.
    """
    from safetensors.torch import load

    try:
        raw = path.read_bytes()
        _refuse_double_names(raw)
        return load(raw)
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file ({error.strerror}); copy the whole folder again"
        ) from error
    except Exception as error:  # SafetensorError and whatever a damaged header sets off
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({' '.join(str(error).split())[:120]}); copy the file again"
        ) from error


def _refuse_double_names(raw: bytes) -> None:
    """The library takes one of two tensors of the same name without a word."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a name stands twice in its header")
        return table

    length = int.from_bytes(raw[:8], "little")
    if length <= _MOST_HEADER:
        json.loads(raw[8 : 8 + length], object_pairs_hook=once)


def read_exposure(path: Path) -> frozenset[str]:
    """Read the pixel hashes of the images that a checkpoint was trained on.

    Raises:
        CheckpointError: missing, or no Arrow file with a column sha256.
    """
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as source:
            column = pa.ipc.open_file(source).read_all().column("sha256")
    except (OSError, KeyError, pa.ArrowException) as error:
        raise CheckpointError(
            f"{path}: expected an Arrow file with a column sha256 ({type(error).__name__}); copy the checkpoint again"
        ) from error
    return frozenset(str(value) for value in column.to_pylist() if value)


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors, floating-point ones as `dtype` if given. Tensors that share memory are written each on its own."""
    from safetensors.torch import save

    plain = {
        name: (t.to(dtype) if dtype is not None and t.is_floating_point() else t).detach().cpu().contiguous().clone()
        for name, t in tensors.items()
    }
    path.write_bytes(save(plain, metadata={"format": "pt"}))


def read_torch_file(path: Path) -> dict[str, torch.Tensor]:
    """Read the state dict of a .pt, .pth or .bin file without running any code in it.

    Prefixes of wrappers ("module.", "model.") and nests ("state_dict", "model") are taken off.

    Raises:
        CheckpointError: missing, damaged, TorchScript, a pickle that holds more than tensors, or no state dict.
    """
    import warnings

    import torch

    if not path.is_file():
        raise CheckpointError(f"{path}: expected a file of weights; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: a TorchScript archive, which holds code; save its state dict instead: "
                "safetensors.torch.save_file(torch.jit.load(path).state_dict(), 'weights.safetensors')"
            ) from error
        raise CheckpointError(
            f"{path}: not a file of plain tensors ({type(error).__name__}); kvlp never runs pickled code; "
            "save a state dict with safetensors, or copy the file again"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    state = {k: v for k, v in value.items() if isinstance(v, torch.Tensor)} if isinstance(value, dict) else {}
    if not state:
        raise CheckpointError(f"{path}: expected a state dict of tensors, got {type(value).__name__}")
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `target`, whole, when the block ends without an error.

    Every file is flushed to disk before the rename, and an older folder of the same name is exchanged in one step where
    the system can (Linux), so that a reader or a crash finds the old folder or the new one.

    Raises:
        CheckpointError: the target is a file, or a folder that holds something other than a checkpoint.
    """
    target = Path(os.path.abspath(target))
    _require_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        scratch.chmod(0o755)
        yield scratch
        _flush(scratch)
        if target.exists():
            _exchange(scratch, target)
        else:
            os.rename(scratch, target)
        _flush_one(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _require_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target}: expected a folder to write a checkpoint to, got a file; choose another name")
    if any(target.iterdir()) and not (target / "kvlp.json").is_file():
        raise CheckpointError(f"{target}: the folder holds other files; choose an empty or new folder")


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _flush_one(path)
    _flush_one(folder)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(scratch: Path, target: Path) -> None:
    """Swap two folders; afterwards `scratch` holds the old one."""
    rename: Callable[..., int] | None = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    arguments = (_AT_FDCWD, os.fsencode(scratch), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE)
    if rename is not None and rename(*arguments) == 0:
        return
    old = scratch.with_suffix(".old")
    os.rename(target, old)
    os.rename(scratch, target)
    os.rename(old, scratch)
