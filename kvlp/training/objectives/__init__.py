"""The losses that a recipe may name: one file each, and one line each in `Losses`, in the order they are added up."""

from __future__ import annotations

from kvlp.training.objectives.arl import ArlPart
from kvlp.training.objectives.clip import ClipPart
from kvlp.training.objectives.concept_align import ConceptAlignPart
from kvlp.training.objectives.contradiction import ContradictionPart
from kvlp.training.objectives.entity import EntityPart
from kvlp.training.objectives.graph_matching import GraphMatchingPart
from kvlp.training.objectives.knowledge import KnowledgePart
from kvlp.training.objectives.local_align import LocalAlignPart
from kvlp.training.objectives.momentum import MomentumPart
from kvlp.training.objectives.motor import MotorPart
from kvlp.training.objectives.part import Active, LossPart
from kvlp.training.objectives.polarity import PolarityPart
from kvlp.training.objectives.query import QueryPart
from kvlp.training.objectives.siglip import SigLipPart
from kvlp.training.settings import Strict

__all__ = [
    "ArlPart",
    "ClipPart",
    "ConceptAlignPart",
    "ContradictionPart",
    "EntityPart",
    "GraphMatchingPart",
    "KnowledgePart",
    "LocalAlignPart",
    "Losses",
    "MomentumPart",
    "MotorPart",
    "PolarityPart",
    "QueryPart",
    "SigLipPart",
]


class Losses(Strict):
    """The losses of a stage; one left out is not computed."""

    clip: ClipPart | None = None
    entity: EntityPart | None = None
    knowledge: KnowledgePart | None = None
    concept_align: ConceptAlignPart | None = None
    query: QueryPart | None = None
    contradiction: ContradictionPart | None = None
    polarity: PolarityPart | None = None
    arl: ArlPart | None = None
    siglip: SigLipPart | None = None
    local_align: LocalAlignPart | None = None
    graph_matching: GraphMatchingPart | None = None
    momentum: MomentumPart | None = None
    motor: MotorPart | None = None

    @property
    def active(self) -> Active:
        """The losses that are given, in the order they are added up."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return Active({name: part for name, part in given.items() if isinstance(part, LossPart)})

    @property
    def with_images(self) -> bool:
        """Whether some loss looks at images."""
        return any(part.looks_at == "images" for part in self.active.parts.values())
