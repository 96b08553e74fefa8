"""Zero-shot is refused as a name wherever training texts may have named the class."""

import pytest

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.names import AND_OTHERS, Names

PROMPTED, ZERO_SHOT, NOT_KNOWN = "prompted classification", "zero-shot", "not known"


@pytest.fixture(scope="module")
def names():
    return Names(KnowledgeGraph.load("chest"))


@pytest.mark.parametrize(
    "asked, trained, said",
    [
        ("pleural effusion", ["pleural_effusion"], PROMPTED),
        ("Pleural Effusion", ["hydrothorax"], PROMPTED),  # a synonym stood there
        ("hydrothorax", ["pleural_effusion"], PROMPTED),  # it is asked for by a synonym
        ("pneumothorax", ["tension_pneumothorax"], PROMPTED),  # a descendant
        ("pleural effusion", ["left pleural effusion"], PROMPTED),  # a side that the graph has no concept of
        ("pleural effusion", ["lung_cavity", "Large hydrothorax, left"], PROMPTED),
        ("tension pneumothorax", ["pneumothorax"], ZERO_SHOT),  # only something more general
        ("lung cavity", ["pleural_effusion", "left pleural effusion"], ZERO_SHOT),
        ("lung cavity", [], ZERO_SHOT),
        ("lung cavity", None, NOT_KNOWN),
        ("lung cavity", ["pleural_effusion", AND_OTHERS], NOT_KNOWN),
        ("pleural effusion", ["pleural_effusion", AND_OTHERS], PROMPTED),
        ("some new sign", ["pleural_effusion"], NOT_KNOWN),  # its synonyms are not known
        ("some new sign", ["clear Some-new sign of old"], PROMPTED),
        ("lung cavity", ["C0032227x", "C9999999x"], NOT_KNOWN),  # concepts of another graph
    ],
)
def test_naming_with_a_graph(names, asked, trained, said):
    assert names.naming([asked], trained) == said


def test_one_named_class_of_two_is_enough(names):
    assert names.naming(["lung cavity", "pleural effusion"], ["pleural_effusion"]) == PROMPTED
    assert names.naming(["lung cavity", "some new sign"], ["pleural_effusion"]) == NOT_KNOWN


def test_without_a_graph_only_the_name_itself_can_be_told():
    plain = Names(None)
    assert plain.naming(["pleural effusion"], ["Pleural_Effusion"]) == PROMPTED
    assert plain.naming(["effusion"], ["small left effusion"]) == PROMPTED
    assert plain.naming(["fusion"], ["small left effusion"]) == NOT_KNOWN, "whole words"
    assert plain.naming(["hydrothorax"], ["Pleural_Effusion"]) == NOT_KNOWN, "it may be a synonym"
    assert plain.naming(["hydrothorax"], []) == ZERO_SHOT
