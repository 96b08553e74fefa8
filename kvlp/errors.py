"""The errors kvlp raises.

KvlpError                 every error of ours; the command line prints it as one line and exits 1
├── ConfigError           a recipe, option or argument is wrong
├── DataError             something that was read is wrong
│   ├── ManifestError     a manifest's rows or columns
│   ├── ImageError        an image file (PNG, JPEG)
│   │   └── DicomError    a DICOM file
│   └── ShardError        a webdataset shard or its manifest
├── KnowledgeError        a graph, ontology file or data file of rules
├── CheckpointError       a model folder or foreign weights
├── ArchiveError          an archive folder or its index
├── ShapeError            an array of the wrong shape (also a ValueError)
└── MissingExtraError     an optional dependency is not installed (also an ImportError)

A message says what was expected, what came, where, and what to do. It never holds report text or a patient identifier.
"""

__all__ = [
    "ArchiveError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DicomError",
    "ImageError",
    "KnowledgeError",
    "KvlpError",
    "ManifestError",
    "MissingExtraError",
    "ShapeError",
    "ShardError",
]


class KvlpError(Exception):
    """Base of every error that kvlp raises on purpose."""


class ConfigError(KvlpError):
    """A recipe, option or argument is wrong."""


class DataError(KvlpError):
    """Data that was read is wrong."""


class ManifestError(DataError):
    """A manifest has wrong rows or columns."""


class ImageError(DataError):
    """An image file cannot be read as what it says it is."""


class DicomError(ImageError):
    """A DICOM file cannot be shown as a grey image."""


class ShardError(DataError):
    """A shard or its manifest is damaged or unsafe."""


class KnowledgeError(KvlpError):
    """A knowledge graph, ontology or rule file is wrong."""


class CheckpointError(KvlpError):
    """A model folder or foreign weights cannot be loaded."""


class ArchiveError(KvlpError):
    """An archive folder or its index is wrong."""


class ShapeError(KvlpError, ValueError):
    """An array has the wrong shape."""


class MissingExtraError(KvlpError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'kvlp[{extra}]'")
        self.package = package
        self.extra = extra
