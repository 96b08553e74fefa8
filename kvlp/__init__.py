"""kvlp: knowledge-enhanced vision-language pretraining on medical images, chest radiographs first.

Every name below is imported on first use, so that `import kvlp` loads neither torch nor faiss.
For research; not a medical device, and not a de-identifier.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.archive import Archive
    from kvlp.checkpoints import Model, load
    from kvlp.datasets.manifest import Manifest
    from kvlp.errors import KvlpError
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.labels import ReportLabeler
    from kvlp.knowledge.linking import EntityLinker, Mention
    from kvlp.knowledge.prompts import Prompts
    from kvlp.workflows.pretrain import pretrain
    from kvlp.zero_shot import ZeroShotClassifier

__version__ = "0.1.0"

_WHERE = {
    "Archive": "kvlp.archive",
    "EntityLinker": "kvlp.knowledge.linking",
    "KnowledgeGraph": "kvlp.knowledge.graph",
    "KvlpError": "kvlp.errors",
    "Manifest": "kvlp.datasets.manifest",
    "Mention": "kvlp.knowledge.linking",
    "Model": "kvlp.checkpoints",
    "Prompts": "kvlp.knowledge.prompts",
    "ReportLabeler": "kvlp.knowledge.labels",
    "ZeroShotClassifier": "kvlp.zero_shot",
    "load": "kvlp.checkpoints",
    "pretrain": "kvlp.workflows.pretrain",
}

__all__ = [
    "Archive",
    "EntityLinker",
    "KnowledgeGraph",
    "KvlpError",
    "load",
    "Manifest",
    "Mention",
    "Model",
    "pretrain",
    "Prompts",
    "ReportLabeler",
    "ZeroShotClassifier",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
