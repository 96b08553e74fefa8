"""Three-stream fusion: padding and removed entities leave no trace, words and places get what is meant for them."""

from __future__ import annotations

import pytest
import torch
from open_clip.timm_model import TimmModel
from torch import Tensor

from kvlp.errors import ConfigError, ShapeError
from kvlp.models.fusion import ThreeStreamFusion
from kvlp.models.reconstruction import MapDecoder, PatchDecoder, covered, patches_of
from kvlp.models.tower_tokens import image_tokens, image_width

B, T, L, E = 3, 5, 7, 4
SIZES = {"width": 16, "heads": 2, "layers": 3, "tap": 2, "entity_width": 8, "entity_heads": 2, "entity_hidden": 16}


def fusion(**changed: object) -> ThreeStreamFusion:
    torch.manual_seed(0)
    concepts = torch.randn(6, 5)
    return ThreeStreamFusion(10, 12, concepts, **{**SIZES, **changed}).double()  # type: ignore[arg-type]


def inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    position = torch.zeros(B, E, L, dtype=torch.bool)
    position[0, 0, 1:3], position[0, 1, 4], position[1, 0, 2], position[2, 2, 3:6] = True, True, True, True
    return {
        "image": torch.randn(B, T, 10, dtype=torch.double, requires_grad=True),
        "text": torch.randn(B, L, 12, dtype=torch.double, requires_grad=True),
        "text_mask": torch.arange(L)[None] < torch.tensor([7, 5, 6])[:, None],
        "entities": torch.tensor([[2, 5, -1, -1], [1, -1, -1, -1], [-1, -1, 3, -1]]),
        "position": position,
    }


def difference(model: ThreeStreamFusion, given: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest change of any word that is no padding, of any place, and of the middle."""
    a, b = model(**given), model(**other)
    words = given["text_mask"]
    length = min(a.text.shape[1], b.text.shape[1])
    seen = words[:, :length]
    first = (a.text[:, :length][seen] - b.text[:, :length][seen]).abs().max()
    return max(first.item(), (a.image - b.image).abs().max().item(), (a.middle - b.middle).abs().max().item())


def test_shapes_and_the_middle_is_that_of_its_layer() -> None:
    given = inputs()
    out = fusion()(**given)
    assert (out.text.shape, out.image.shape, out.middle.shape) == ((B, L, 16), (B, T, 16), (B, T, 16))
    assert out.pair.shape == (B, 32)
    whole = fusion(tap=3)
    last = whole(**given)
    torch.testing.assert_close(whole.image_norm(last.middle), last.image)
    short = fusion()
    short.layers = short.layers[:2]
    short.entity_layers = short.entity_layers[:2]
    torch.testing.assert_close(short(**given).middle, out.middle)


def test_padding_of_words_and_entities_never_changes_anything() -> None:
    given, model = inputs(), fusion()
    noise = {**given, "text": torch.where(given["text_mask"][..., None], given["text"], 9.0)}
    assert difference(model, given, noise) < 1e-12
    longer = {
        **given,
        "text": torch.nn.functional.pad(given["text"], (0, 0, 0, 2), value=3.0),
        "text_mask": torch.nn.functional.pad(given["text_mask"], (0, 2)),
        "entities": torch.nn.functional.pad(given["entities"], (0, 3), value=-1),
        "position": torch.nn.functional.pad(given["position"], (0, 2, 0, 3)),
    }
    assert difference(model, given, longer) < 1e-12
    claimed = {**given, "position": given["position"] | (given["entities"] < 0)[..., None]}
    assert difference(model, given, claimed) == 0.0  # an entity that is none says nothing, whatever its place


def test_a_removed_entity_leaves_no_trace() -> None:
    given, model = inputs(), fusion()
    assert difference(model, given, {**given, "entities": torch.tensor([[4, 5, -1, -1], *[[-1] * 4] * 2])}) > 1e-3
    removed = {**given, "entities": given["entities"].clone()}
    removed["entities"][0, 1] = -1
    out = model(**removed)
    model.concepts[5] = torch.randn(5, dtype=torch.double)  # its own vector
    model.concepts[0] = torch.randn(5, dtype=torch.double)  # the row that an empty place would read
    again = model(**removed)
    assert all(torch.equal(a, b) for a, b in zip(out, again, strict=True))
    kept = torch.tensor([0, 2, 3])
    absent = {**removed, "entities": removed["entities"][:, kept], "position": removed["position"][:, kept]}
    assert difference(model, removed, absent) < 1e-12


def test_an_entity_speaks_to_the_words_of_its_mention_alone() -> None:
    model, given = fusion(layers=1, tap=1), inputs()
    for parameter in model.layers[0].parameters():  # words and places look at nothing: the residual is left
        torch.nn.init.zeros_(parameter)
    model.text_norm = torch.nn.Identity()
    plain = fusion(layers=1, tap=1, reason=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.text_norm = torch.nn.Identity()
    moved = (model(**given).text - plain(**given).text).abs().sum(dim=2) > 0
    named = (given["position"] & (given["entities"] >= 0)[..., None]).any(dim=1)
    assert torch.equal(moved, named)


def test_the_order_of_rows_and_of_entities_does_not_matter() -> None:
    model, given = fusion(), inputs()
    order = torch.tensor([2, 0, 1])
    out, moved = model(**given), model(**{name: value[order] for name, value in given.items()})
    assert all(torch.allclose(a[order], b, atol=1e-12) for a, b in zip(out, moved, strict=True))
    turned = {**given, "entities": given["entities"].flip(1), "position": given["position"].flip(1)}
    assert difference(model, given, turned) < 1e-12


def test_every_weight_and_both_inputs_get_a_gradient() -> None:
    model, given = fusion(tap=3), inputs()
    out = model(**given)
    (out.text[given["text_mask"]].pow(2).sum() + out.image.pow(2).sum() + out.middle.sum()).backward()
    assert not {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0} - {
        name
        for name, _ in model.named_parameters()
        if name.endswith("key.bias")  # softmax does not see it
    }
    for name in ("image", "text"):
        assert (given[name].grad.abs().sum(dim=2) > 0).any(dim=1).all()
    assert not given["text"].grad[~given["text_mask"]].any()


def test_without_reason_there_is_no_third_stream() -> None:
    given, model = inputs(), fusion(reason=False)
    assert not [name for name in model.state_dict() if "entity" in name or "concepts" in name]
    assert difference(model, given, {**given, "entities": given["entities"] * 0 - 1}) == 0.0


def test_what_does_not_fit_is_refused() -> None:
    given = inputs()
    with pytest.raises(ConfigError, match=r"tap between 1 and layers \(3\), got 4"):
        fusion(tap=4)
    with pytest.raises(ConfigError, match="widths that heads divide, got 16 by 3"):
        fusion(heads=3)
    with pytest.raises(ShapeError, match=r"position \(B, E, L\), got"):
        fusion()(**{**given, "position": given["position"][:, :, 1:]})


def test_patches_are_cut_row_by_row() -> None:
    pixels = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor([[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]).float()
    assert torch.equal(patches_of(pixels, 2), expected)
    with pytest.raises(ShapeError, match="patches of 3 fill"):
        patches_of(pixels, 3)


def test_the_decoder_puts_each_feature_at_its_patch() -> None:
    torch.manual_seed(0)
    decoder = PatchDecoder(5, 6, 12, dim=8, layers=1, heads=2)
    features, keep = torch.randn(2, 3, 5), torch.tensor([[1, 4], [0, 5]])
    painted = decoder(features, keep)
    assert painted.shape == (2, 6, 12)
    swapped = decoder(features[:, [0, 2, 1]], keep.flip(1))  # the same patches in another order
    torch.testing.assert_close(swapped, painted)
    assert not torch.allclose(decoder(features, keep.flip(1)), painted)
    with pytest.raises(ShapeError, match=r"expected features \(2, 3, W\)"):
        decoder(features[:, 1:], keep)


def test_covered_patches_are_grey_and_the_others_as_they_were() -> None:
    pixels = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    seen = covered(pixels, torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    expected = torch.tensor([[0.0, 0, 3, 4], [0, 0, 7, 8], [9, 10, 0, 0], [13, 14, 0, 0]])
    assert torch.equal(seen[0, 0], expected)
    assert torch.equal(patches_of(seen, 2)[0, 1:3], patches_of(pixels, 2)[0, 1:3])  # numbered as the targets are
    with pytest.raises(ShapeError, match="a square number of patches fills"):
        covered(pixels, torch.zeros(1, 9))


def test_a_place_paints_its_own_part_alone() -> None:
    torch.manual_seed(0)
    decoder = MapDecoder(5, 4, 12)
    features = torch.randn(2, 4, 5)
    changed = features.clone()
    changed[:, 2] += 1 + torch.randn(5)
    apart = (decoder(features, features[:, :0]) - decoder(changed, features[:, :0])).abs().sum(dim=2)
    assert (apart[:, 2] > 0).all()
    assert (apart[:, [0, 1, 3]] == 0).all()
    with pytest.raises(ShapeError, match=r"expected features \(B, 4, W\)"):
        decoder(features[:, 1:], features)


def test_a_tower_of_channels_last_gives_its_places_row_by_row() -> None:
    torch.manual_seed(0)
    tower = TimmModel("test_mambaout", embed_dim=8, image_size=96, pool="", proj="linear", pretrained=False).eval()
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        tokens, found = image_tokens(tower, pixels), tower.trunk.forward_features(pixels)
    assert tokens.shape == (1, 9, image_width(tower))
    assert torch.equal(tokens[0, 3 * 1 + 2], found[0, 1, 2])
