"""Mistakes of published code, each written out as it stands there, with the property that it lacks and ours has.

One function a mistake. The published lines are reduced to what goes wrong.
"""

# B batch, K labels, C channels, H W map

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pairs import batch as batch_of_pairs
from pairs import set_up, total
from torch import Tensor, nn

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.losses import Bce
from tutelage.multilabel.methods.features.functional import kdsvd, right_singular_vectors
from tutelage.multilabel.methods.logits.dist import Dist
from tutelage.multilabel.methods.logits.functional import (
    normalised_kd,
    partial_softmax_kl,
    pearson_distance,
    softmax_kl,
)
from tutelage.multilabel.methods.logits.kd import Kd
from tutelage.multilabel.methods.logits.mse import Mse
from tutelage.multilabel.methods.maps.functional import region_logits
from tutelage.multilabel.methods.matching import teacher_top
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.methods.relations.functional import queue_relation, sp
from tutelage.multilabel.metrics import predicted_labels
from tutelage.multilabel.module import Distillation
from tutelage.multilabel.networks import network as networks
from tutelage.multilabel.networks.cam import linear_cam, with_grad_cams
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.networks.output import NetOutput
from tutelage.multilabel.teacher import Teacher
from tutelage.multilabel.terms import TermSpec


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def batch(target_BK: Tensor, *, padding: tuple[int, ...] = ()) -> Batch:
    index_B = torch.tensor([-1 if i in padding else i for i in range(len(target_BK))])
    images = torch.randint(0, 256, (len(target_BK), 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return Batch(images.to(torch.uint8), target_BK, index_B, index_B.clamp(max=0))


def everything(logits_BK: Tensor) -> Tensor:
    return torch.ones_like(logits_BK, dtype=torch.bool)


def small_network(head: str = "Linear") -> Network:
    return build_network(
        NetworkSpec(name="resnet10t", weights="none"),
        num_labels=3,
        head={"_target_": f"tutelage.multilabel.networks.heads.{head}"},
        resolution=32,
        where="model.student",
    )


# --- maps ------------------------------------------------------------------------------------------------------------


def test_learning_without_memorizing_multiplies_gradients_by_gradients() -> None:
    """Grad-CAM is Σ_c ᾱ_c A_c. Code of LwM has Σ_c ᾱ_c ∂z/∂A_c, which does not know where anything is."""
    features, weight_KC = random(1, 1, 4, 3, 3), random(2, 2, 4)

    def head(seen: Tensor) -> NetOutput:
        return NetOutput(seen.mean((2, 3)) @ weight_KC.T)

    leaf = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(head(leaf).logits_BK[0, 0], leaf)
    published = (gradient.mean((2, 3), keepdim=True) * gradient).sum(1)
    assert published.std() < 1e-6  # the same everywhere
    ours = with_grad_cams(head, features, to_map=lambda seen: seen)[1](torch.tensor([[0]]))
    torch.testing.assert_close(ours, linear_cam(features, weight_KC)[:, :1])
    assert ours.std() > 1


def test_learning_without_memorizing_detaches_its_attention() -> None:
    """Its attention is made of numbers taken out of the graph, so the loss trains nothing."""
    features, weight_KC = random(1, 1, 4, 3, 3).requires_grad_(), random(2, 2, 4)

    def head(seen: Tensor) -> NetOutput:
        return NetOutput(seen.mean((2, 3)) @ weight_KC.T)

    (gradient,) = torch.autograd.grad(head(features).logits_BK[0, 0], features)
    published = (gradient.mean((2, 3), keepdim=True) * features.detach()).sum(1).relu()
    assert not published.requires_grad
    ours = with_grad_cams(head, features, to_map=lambda seen: seen)[1](torch.tensor([[0]])).relu()
    (learnt,) = torch.autograd.grad(ours.sum(), features)
    assert learnt.abs().sum() > 0


@pytest.mark.parametrize("logits_BK", [[[4.0, 3.0, 2.0, 1.0]], [[4.0, 3.0, 3.0, 1.0], [4.0, 3.0, 2.0, 1.0]]])
def test_cat_kd_keeps_one_class_too_few_and_falls_back_to_all(logits_BK: list[list[float]]) -> None:
    """ReLU(z − z_n) is 0 for the n-th class itself; where rows then differ in number, no class is masked at all."""
    teacher_BK, n = torch.tensor(logits_BK), 3
    nth_B1 = teacher_BK.sort(descending=True)[0][:, n - 1 : n]
    mask_BK = (teacher_BK - nth_B1).relu().bool()
    kept_B = mask_BK.sum(1) if mask_BK.sum() % len(mask_BK) == 0 else torch.full((len(mask_BK),), 4)
    assert (kept_B != n).all()
    ours_BK = teacher_top(n).weigh(teacher_BK, torch.zeros_like(teacher_BK))
    assert (ours_BK.sum(1) == n).all()


def test_sdd_pools_a_pooled_map() -> None:
    """Its global logit is a 1×1 pool of a 4×4 pool, which at 7×7 is not global average pooling."""
    features, weight_KC, bias_K = random(1, 2, 6, 7, 7), random(2, 3, 6), random(3, 3)
    logits_BK = features.mean((2, 3)) @ weight_KC.T + bias_K
    pooled = F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(features, 4), 1).flatten(1)
    published_BK = pooled @ weight_KC.T + bias_K
    assert (published_BK - logits_BK).abs().max() > 0.1
    cams_BKHW = linear_cam(features, weight_KC)
    for size in ((1, 1), (4, 4)):
        ours_BKR = region_logits(cams_BKHW, logits_BK, size=size)
        torch.testing.assert_close(ours_BKR.mean(2), logits_BK, rtol=1e-4, atol=1e-4)


# --- logits ----------------------------------------------------------------------------------------------------------


def test_sdd_nkd_never_takes_the_target_out() -> None:
    """`ones.scatter_(1, label, 1)` is ones: the softmax over the other labels still holds the target."""
    student_BK, teacher_BK, label_B1 = random(1, 2, 4), random(2, 2, 4), torch.tensor([[0], [2]])

    def published(student: Tensor) -> Tensor:
        mask_BK = torch.ones_like(student).scatter_(1, label_B1, 1).bool()
        others = student[mask_BK].reshape(2, -1).log_softmax(1)
        return -(teacher_BK[mask_BK].reshape(2, -1).softmax(1) * others).sum(1)

    def ours(student: Tensor) -> Tensor:
        target_BK = torch.zeros(2, 4).scatter_(1, label_B1, 1)
        setting: dict[str, Any] = {"counted_BK": everything(student), "temperature": 1.0}
        losses = [normalised_kd(student, teacher_BK, target_BK, gamma=gamma, **setting) for gamma in (1.0, 0.0)]
        return losses[0] - losses[1]  # the part of the other labels

    louder_BK = student_BK.scatter_add(1, label_B1, torch.full((2, 1), 3.0))
    assert (published(louder_BK) - published(student_BK)).abs().min() > 0.1
    torch.testing.assert_close(ours(louder_BK), ours(student_BK), rtol=1e-4, atol=1e-5)


def test_dist_plus_adds_a_correlation() -> None:
    """torchdistill's DIST+ adds the channel correlation itself: its minimum is where the student is the opposite."""
    teacher = random(1, 4, 6)

    def published(student: Tensor) -> float:
        s, t = student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True)
        return ((s * t).sum(1) / (s.square().sum(1) * t.square().sum(1)).sqrt()).mean().item()

    def ours(student: Tensor) -> float:
        return pearson_distance(student, teacher, counted=everything(student), dim=1)[0].mean().item()

    assert published(-teacher) < published(random(2, 4, 6)) < published(teacher)
    assert ours(teacher) == pytest.approx(0, abs=1e-6) and ours(teacher) < ours(random(2, 4, 6)) < ours(-teacher)


def test_mskd_divides_by_the_label_count_of_the_last_sample() -> None:
    """`labels` is left over from the loop, so that the loss of a batch depends on the order of its images."""
    student_BK, teacher_BK = random(1, 3, 5), random(2, 3, 5)
    target_BK = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0]])

    def published(order: list[int]) -> float:
        total = 0.0
        for student, target in zip(student_BK[order], target_BK[order], strict=True):
            labels = target.nonzero()
            absent = student[target == 0]
            for label in labels:
                total += (torch.cat([student[label], absent]).logsumexp(0) - student[label]).item()
        return total / len(labels)

    def ours(order: list[int]) -> float:
        arguments = student_BK[order], teacher_BK[order], target_BK[order]
        return partial_softmax_kl(*arguments, counted_BK=everything(student_BK)).mean().item()

    assert abs(published([0, 1, 2]) - published([0, 2, 1])) > 0.1
    assert ours([0, 1, 2]) == pytest.approx(ours([0, 2, 1]), rel=1e-5)


def test_model_optimizer_divides_the_divergence_by_the_number_of_labels() -> None:
    """With `reduction="mean"` the KL is a mean over B·K, so that labels without any probability make it smaller."""

    def with_idle_labels(logits_BK: Tensor) -> Tensor:
        return torch.cat([logits_BK, torch.full((2, 12), -100.0)], dim=1)

    def published(student: Tensor, teacher: Tensor) -> float:
        with pytest.warns(UserWarning, match="'mean' divides the total loss by both"):  # torch says so, too
            return F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="mean").item()

    def ours(student: Tensor, teacher: Tensor) -> float:
        return softmax_kl(student, teacher, counted_BK=everything(student), temperature=1.0).mean().item()

    student_BK, teacher_BK = random(1, 2, 4), random(2, 2, 4)
    wider = with_idle_labels(student_BK), with_idle_labels(teacher_BK)
    assert published(*wider) == pytest.approx(published(student_BK, teacher_BK) / 4, rel=1e-4)
    assert ours(*wider) == pytest.approx(ours(student_BK, teacher_BK), rel=1e-4)


def test_mlkd_masks_a_number_that_was_already_reduced() -> None:
    """(scalar · mask).mean() is the loss of all images, made smaller: what is masked out is learnt all the same."""
    teacher_BK, mask_B = random(2, 3, 4), torch.tensor([True, True, False])

    def gradient(loss: Any) -> Tensor:
        student_BK = random(1, 3, 4).requires_grad_()
        (found,) = torch.autograd.grad(loss(student_BK), student_BK)
        assert isinstance(found, Tensor)
        return found

    def published(student_BK: Tensor) -> Tensor:
        reduced = F.kl_div(student_BK.log_softmax(1), teacher_BK.softmax(1), reduction="none").sum(1).mean()
        return (reduced * mask_B).mean()

    def ours(student_BK: Tensor) -> Tensor:
        given = batch(torch.zeros(3, 4), padding=(2,))
        return Kd(temperature=1.0)(NetOutput(student_BK), NetOutput(teacher_BK), given, 0.0)["kd"]

    assert gradient(published)[2].abs().sum() > 0
    assert not gradient(ours)[2].any() and gradient(ours)[:2].abs().sum() > 0


def test_mlkd_computes_relations_and_never_returns_them() -> None:
    """Both relation losses of the strong view are made, and only those of the weak one are in what is returned."""
    weak_BK, strong_BK, teacher_BK = random(1, 3, 4).requires_grad_(), random(2, 3, 4).requires_grad_(), random(3, 3, 4)

    def relation(student_BK: Tensor) -> Tensor:
        student_BB, teacher_BB = (x.softmax(1) @ x.softmax(1).T for x in (student_BK, teacher_BK))
        return (student_BB - teacher_BB).square().sum()

    loss_weak, loss_strong = relation(weak_BK), relation(strong_BK)
    returned = {"loss_bc": loss_weak}
    sum(returned.values()).backward()  # type: ignore[union-attr]
    assert loss_strong > 0 and weak_BK.grad is not None and strong_BK.grad is None

    # ours: each part of DIST is returned, and a term adds up whatever is.
    parts = Dist(beta=1.0, gamma=1.0, temperature=1.0)(
        NetOutput(weak_BK), NetOutput(teacher_BK), batch(torch.zeros(3, 4)), 0.0
    )
    assert set(parts) == {"inter", "intra"}
    for part in parts.values():
        (gradient,) = torch.autograd.grad(part, weak_BK, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_mlkd_takes_the_weak_logits_for_the_strong_view() -> None:
    """At two of its five temperatures the "strong" loss reads the weak view: those do not train on the strong one."""
    weak_BK, strong_BK, teacher_BK = random(1, 3, 4), random(2, 3, 4).requires_grad_(), random(3, 3, 4)

    def published(temperature: float) -> Tensor:
        read_BK = weak_BK if temperature in (2.0, 6.0) else strong_BK
        return softmax_kl(read_BK, teacher_BK, counted_BK=everything(read_BK), temperature=temperature).mean()

    def ours(temperature: float) -> Tensor:
        outputs = NetOutput(strong_BK), NetOutput(teacher_BK)
        return Kd(temperature=temperature)(*outputs, batch(torch.zeros(3, 4)), 0.0)["kd"]

    temperatures = (4.0, 3.0, 5.0, 2.0, 6.0)
    assert [published(temperature).requires_grad for temperature in temperatures] == [True] * 3 + [False] * 2
    assert all(ours(temperature).requires_grad for temperature in temperatures)


# --- training and scoring --------------------------------------------------------------------------------------------

INFO = DataInfo(num_samples=4, label_names=("a", "b", "c"), positives_K=torch.ones(3), max_positives=2, batch_size=2)


def distillation(*, compile: bool = False) -> tuple[Distillation, Teacher]:
    teacher = Teacher(small_network(), compile=compile)
    module = Distillation(
        small_network(),
        task_loss=Bce(reduction="mean"),
        terms={"mse": TermSpec(method=Mse())},
        teachers={"teacher": teacher},
        data=INFO,
        optim=None,  # type: ignore[arg-type]
        compile=compile,
    )
    return module, teacher


def test_l2d_lets_gradients_into_the_teacher() -> None:
    """Its teacher's forward is not under no_grad: a graph of the larger network is kept in memory at every step."""
    given, network = batch(torch.zeros(2, 3)), small_network()
    assert network(given.images_BCHW).logits_BK.requires_grad  # as published
    output = Teacher(small_network())(given, reads=frozenset({"cams_BKHW", "stages"}))
    assert output.cams_BKHW is not None
    assert not any(shown.requires_grad for shown in (output.logits_BK, output.cams_BKHW, *output.stages))


def test_a_teacher_that_is_a_submodule_is_trained_saved_and_switched_to_training() -> None:
    """As a submodule a teacher is in checkpoints, in `parameters()`, and `train()` moves its batch norms."""

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = small_network(), small_network().eval()

    published = Published().train()
    assert published.teacher.training
    assert any(name.startswith("teacher") for name in published.state_dict())
    assert any(parameter is next(published.teacher.parameters()) for parameter in published.parameters())

    module, teacher = distillation()
    module.train()
    assert not any(part.training for part in teacher.network.modules())
    mine = {id(parameter) for parameter in teacher.network.parameters()}
    assert not mine & {id(parameter) for parameter in module.parameters()}
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert {name.split(".")[0] for name in module.state_dict()} <= {"student", "terms", "val_scores"}
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    teacher(batch(torch.zeros(2, 3)), reads=frozenset())
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())


def test_teacher_and_student_are_compiled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm issue 2693: one compiled task of both lost 40 % of the speed. Ours compiles one function for each."""
    compiled: list[Any] = []
    monkeypatch.setattr(networks.torch, "compile", lambda function, **_: compiled.append(function) or function)
    module, teacher = distillation(compile=True)
    assert {id(function.__self__) for function in compiled} == {id(module.student), id(teacher.network)}
    assert len(compiled) == 2


def test_timm_compares_normalisations_on_the_device_at_every_step() -> None:
    """`torch.equal` of two buffers waits for the GPU. A meta tensor has no values: it shows who asks for some."""
    mean = torch.zeros(3, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.equal(mean, mean)  # as published
    network = small_network().to("meta")
    assert network.prepare(torch.zeros(2, 3, 64, 64, dtype=torch.uint8, device="meta")).shape == (2, 3, 32, 32)


def test_l2d_thresholds_each_image_at_its_own_number_of_labels() -> None:
    """Its F1 takes as many labels of an image as are right: a prediction that knows the answer."""
    logits_NK = np.array([[3.0, 2.0, -1.0], [3.0, 2.0, -1.0]])
    targets_NK = np.array([[1, 0, 0], [1, 1, 0]])
    published = [row >= np.sort(row)[-target.sum()] for row, target in zip(logits_NK, targets_NK, strict=True)]
    assert not np.array_equal(published[0], published[1])  # the same image by its logits
    ours = predicted_labels(logits_NK)
    assert np.array_equal(ours[0], ours[1])


# --- features and relations ------------------------------------------------------------------------------------------


def test_mdistillers_vid_never_trains_its_variances() -> None:
    """They are Parameters in a plain list, so neither `parameters()` nor its own list of learnables has them."""

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.regressors = nn.ModuleList([nn.Conv2d(3, 4, 1)])
            self.log_scales = [nn.Parameter(torch.full((4,), 4.99))]

        def get_learnable_parameters(self) -> list[nn.Parameter]:
            return [parameter for regressor in self.regressors for parameter in regressor.parameters()]

    published = Published()
    learned = {id(parameter) for parameter in (*published.parameters(), *published.get_learnable_parameters())}
    assert id(published.log_scales[0]) not in learned and "log_scales.0" not in published.state_dict()

    ours, student, teacher = set_up("vid", "cnn_from_cnn")
    assert "log_scales_C.0" in dict(ours.named_parameters()) and "log_scales_C.0" in ours.state_dict()
    before = [variance.detach().clone() for variance in ours.variances()]
    optimiser = torch.optim.SGD(ours.parameters(), lr=1.0)
    total(ours, student, teacher, batch_of_pairs()).backward()
    optimiser.step()
    assert all((old != new).all() for old, new in zip(before, ours.variances(), strict=True))


def test_reviewkds_channels_are_typed_for_each_pair() -> None:
    """Its configs hold IN_CHANNELS of one student. Another student's stages do not go in."""
    in_channels = [64, 128, 256, 512]  # ResNet-18's, as in its configs
    typed = nn.ModuleList([nn.Conv2d(channels, 256, 1) for channels in in_channels])
    _, narrow, _ = set_up("reviewkd", "cnn_from_cnn")  # a student with stages of other widths
    stages = narrow(batch_of_pairs().images_BCHW, reads=frozenset({"stages"})).stages
    with pytest.raises(RuntimeError, match="channels"):
        typed[0](stages[-4])

    for pair in ("cnn_from_cnn", "swin_from_cnn", "cnn_from_vit"):
        ours, student, teacher = set_up("reviewkd", pair)
        assert total(ours, student, teacher, batch_of_pairs()).isfinite()


@pytest.mark.parametrize("name", ["rkd", "pkt", "reviewkd"])
def test_l2d_calls_its_feature_baselines_with_other_arguments_than_they_take(name: str) -> None:
    """The distiller hands on (student, teacher, targets); the three want the networks' logits as well."""

    class Published(nn.Module):
        def forward(
            self, f_s: Tensor, f_t: Tensor, out_student: Tensor, out_teacher: Tensor, targets: Tensor
        ) -> Tensor:
            return (f_s - f_t).square().mean()

    features = random(1, 4, 8)
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        Published()(features, features, torch.ones(4, 3))

    ours, student, teacher = set_up(name, "cnn_from_cnn")  # called as every method is
    loss = total(ours, student, teacher, batch_of_pairs())
    assert loss.isfinite() and loss > 0


def test_mdistillers_kdsvd_reads_nchw_as_nhwc() -> None:
    """It views [B, C, H, W] as C·H × W, so its vectors run over the columns of the image, not over channels."""

    def published(maps_BCHW: Tensor, rank: int) -> Tensor:
        batch_size, channels, height, width = maps_BCHW.shape
        return torch.linalg.svd(maps_BCHW.reshape(batch_size, channels * height, width)).Vh[:, :rank].transpose(1, 2)

    maps = random(3, 2, 6, 4, 5).relu()
    shuffled = maps.flatten(2)[:, :, torch.randperm(20, generator=torch.Generator().manual_seed(0))].view_as(maps)
    assert published(maps, 1).shape == (2, 5, 1)  # one number a column
    assert not torch.allclose(published(maps, 1).abs(), published(shuffled, 1).abs(), atol=1e-3)
    # Of channels it does not matter where in the image they respond.
    ours, of_shuffled = (right_singular_vectors(each, rank=1)[0] for each in (maps, shuffled))
    assert ours.shape == (2, 6, 1)
    torch.testing.assert_close(ours, of_shuffled, rtol=1e-3, atol=1e-4)
    assert kdsvd([maps, maps], [shuffled, shuffled], rank=1).max() < 1e-6


def test_torchdistills_sp_takes_the_dimension_for_the_norm() -> None:
    """`normalize(G, 1)` sets p = 1: rows of unit L1 norm, whose differences shrink with the batch."""
    student, teacher = random(5, 6, 3), random(6, 6, 3)
    rows = [F.normalize(features @ features.T, 1) for features in (student, teacher)]  # as published
    assert torch.allclose(rows[0].abs().sum(1), torch.ones(6)) and (rows[0].norm(dim=1) < 0.9).all()
    unit = [F.normalize(features @ features.T, p=2, dim=1) for features in (student, teacher)]
    ours = sp(student, teacher, valid_B=torch.ones(6, dtype=torch.bool))
    assert ours.item() == pytest.approx((unit[0] - unit[1]).square().mean().item(), rel=1e-4)
    assert ours > 2 * (rows[0] - rows[1]).square().mean()


def test_lightly_trains_queue_begins_with_zeros_that_take_part() -> None:
    """Slots that hold nothing have similarity 0, and a share of the softmax: at the start nearly all of it."""
    embeddings = F.normalize(random(7, 2, 16), dim=1)
    queue = torch.cat([embeddings, torch.zeros(5000, 16)])
    filled = torch.arange(5002) < 2
    published = torch.softmax(embeddings @ queue.T / 0.5, 1)
    assert (published[:, 2:].sum(1) > 0.99).all()
    student = F.normalize(random(8, 2, 16), dim=1)
    ours = queue_relation(student, embeddings, queue_MC=queue, filled_M=filled, temperature=0.5)
    alone = queue_relation(student, embeddings, queue_MC=queue[:2], filled_M=filled[:2], temperature=0.5)
    torch.testing.assert_close(ours, alone)


def test_unstable_singular_vectors_give_nan_gradients() -> None:
    """mdistiller differentiates torch's SVD, whose gradient divides by differences of singular values."""
    maps = torch.zeros(1, 4, 2, 2)
    maps[0, 0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # three dead channels: three singular values of 0
    published = maps.clone().requires_grad_()
    torch.linalg.svd(published.flatten(2).transpose(1, 2), full_matrices=False).Vh[:, :2].square()[0, 1, 1].backward()
    assert published.grad is not None and not published.grad.isfinite().all()
    ours = maps.clone().requires_grad_()
    right_singular_vectors(ours, rank=2)[0].square()[0, 1, 1].backward()
    assert ours.grad is not None and ours.grad.isfinite().all()
