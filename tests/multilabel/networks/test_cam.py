"""Class activation maps as functions."""

# B batch, K labels, C channels, H W map, N tokens

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tutelage.multilabel.networks.cam import all_labels, chosen_linear_cam, linear_cam, with_grad_cams
from tutelage.multilabel.networks.output import NetOutput


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def as_it_is(map_BCHW: Tensor) -> Tensor:
    return map_BCHW


def maps_of(
    scores: Callable[[Tensor], Tensor], seen: Tensor, *, to_map: Callable[[Tensor], Tensor] = as_it_is
) -> Tensor:
    output, maps = with_grad_cams(lambda features: NetOutput(scores(features)), seen, to_map=to_map)
    return maps(all_labels(output.logits_BK))


def test_linear_cam_is_the_weighted_sum_of_channels() -> None:
    map_BCHW, weight_KC = features(2, 3, 4, 5), features(6, 3)
    expected = torch.zeros(2, 6, 4, 5)
    for label in range(6):
        for channel in range(3):
            expected[:, label] += weight_KC[label, channel] * map_BCHW[:, channel]
    torch.testing.assert_close(linear_cam(map_BCHW, weight_KC), expected)


def test_grad_cam_of_mean_pooling_is_the_linear_cam() -> None:
    map_BCHW = features(2, 3, 4, 5)
    classifier = nn.Linear(3, 6)
    found = maps_of(lambda seen: classifier(seen.mean((2, 3))), map_BCHW)
    torch.testing.assert_close(found, linear_cam(map_BCHW, classifier.weight))


def test_grad_cam_weighs_channels_by_summed_gradients() -> None:
    # One score, the sum of squares: its gradient is 2F, so the channel weights are 2·ΣF.
    map_BCHW = features(2, 3, 4, 5)
    found = maps_of(lambda seen: seen.square().sum((1, 2, 3))[:, None], map_BCHW)
    weights_BC = 2 * map_BCHW.sum((2, 3))
    torch.testing.assert_close(found[:, 0], torch.einsum("bc,bchw->bhw", weights_BC, map_BCHW))


def test_grad_cam_takes_tokens() -> None:
    tokens_BNC = features(2, 12, 3)
    classifier = nn.Linear(3, 6)
    found = maps_of(
        lambda seen: classifier(seen.mean(1)),
        tokens_BNC,
        to_map=lambda seen: seen.transpose(1, 2).reshape(seen.shape[0], 3, 3, 4),
    )
    map_BCHW = tokens_BNC.transpose(1, 2).reshape(2, 3, 3, 4)
    torch.testing.assert_close(found, linear_cam(map_BCHW, classifier.weight))


def test_grad_cam_can_be_differentiated() -> None:
    map_BCHW = features(2, 3, 4, 5).double().requires_grad_()
    torch.manual_seed(0)
    scores = nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def maps(seen: Tensor) -> Tensor:
        return maps_of(scores, seen)

    assert torch.autograd.gradcheck(maps, (map_BCHW,))
    maps(map_BCHW).square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in scores.named_parameters() if "weight" in name)


def test_grad_cam_works_where_gradients_are_off() -> None:
    map_BCHW = features(2, 3, 4, 5)
    classifier = nn.Linear(3, 6)

    def scores(seen: Tensor) -> Tensor:
        return classifier(seen.mean((2, 3)))

    expected = maps_of(scores, map_BCHW).detach()
    with torch.no_grad():
        found = maps_of(scores, map_BCHW)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)
    with torch.inference_mode():
        found = maps_of(scores, torch.tensor(map_BCHW.tolist()))
    torch.testing.assert_close(found.clone(), expected)
    assert classifier.weight.grad is None


def test_maps_of_chosen_labels_are_those_of_all() -> None:
    map_BCHW, labels_BL = features(2, 3, 4, 5), torch.tensor([[5, 0], [1, 1]])
    classifier = nn.Linear(3, 6)
    expected = torch.stack([linear_cam(map_BCHW, classifier.weight)[image, labels_BL[image]] for image in range(2)])
    torch.testing.assert_close(chosen_linear_cam(map_BCHW, classifier.weight, labels_BL), expected)
    _, maps = with_grad_cams(lambda seen: NetOutput(classifier(seen.mean((2, 3)))), map_BCHW, to_map=as_it_is)
    torch.testing.assert_close(maps(labels_BL), expected)
    whole = NetOutput(torch.zeros(2, 6), cams_BKHW=linear_cam(map_BCHW, classifier.weight))
    torch.testing.assert_close(whole.chosen_cams(labels_BL), expected)
