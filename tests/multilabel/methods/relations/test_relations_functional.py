"""The losses between relations: against plain loops, torchdistill's, stored values, and the batch in parts."""

# B batch, C channels, K labels, D channels of a label's embedding

import itertools
import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.multilabel.methods.relations import functional


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers that no generator's version can change."""
    count = math.prod(shape)
    return (torch.sin(torch.arange(count) * 0.7 + phase) + 0.3 * torch.cos(torch.arange(count) * 2.3)).reshape(shape)


STUDENT, TEACHER = waves(5, 6), waves(5, 6, phase=1.1)
ALL = torch.ones(5, dtype=torch.bool)
SOME = torch.tensor([True, False, True, True, True])
POSITIVE = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]])
QUEUE = F.normalize(waves(7, 6, phase=3.0), dim=1)
FILLED = torch.tensor([True, True, False, True, True, True, False])

# Over the batch: of student, teacher and which rows count.
OVER_BATCH: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "rkd_distance": lambda s, t, valid: functional.rkd_distance(s, t, valid_B=valid),
    "rkd_angle": lambda s, t, valid: functional.rkd_angle(s, t, valid_B=valid),
    "sp": lambda s, t, valid: functional.sp(s, t, valid_B=valid),
    "pkt": lambda s, t, valid: functional.pkt(s, t, valid_B=valid),
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{
        name: (lambda s, t, loss=loss: loss(s, t, SOME)[None])  # type: ignore[misc]
        for name, loss in OVER_BATCH.items()
    },
    "crd": lambda s, t: functional.crd(s[:, 0].exp(), s.exp() / 5, counts_BM=t > 0, num_samples=9),
    "queue_relation": lambda s, t: functional.queue_relation(s, t, queue_MC=QUEUE, filled_M=FILLED, temperature=0.5),
    "token_relation": lambda s, t: functional.token_relation(
        s.reshape(5, 1, 3, 2), t.reshape(5, 1, 3, 2), temperature=0.5
    ),
    "class_aware": lambda s, t: functional.class_aware(s.reshape(5, 3, 2), t.reshape(5, 3, 2), positive_BK=POSITIVE),
    "instance_aware": lambda s, t: functional.instance_aware(
        s.reshape(5, 3, 2), t.reshape(5, 3, 2), positive_BK=POSITIVE
    ),
}
STORED: dict[str, list[float]] = {
    "rkd_distance": [0.00474055],
    "rkd_angle": [0.00428748],
    "sp": [0.0160731],
    "pkt": [0.00515794],
    "crd": [2.92342, 2.8172, 0.761427, 2.56522, 2.64595],
    "queue_relation": [0.181787, 0.315724, 0.512713, 0.149598, 0.338651],
    "token_relation": [0.792986, 1.28558, 1.36777, 1.76239, 0.916544],
    "class_aware": [0.00685968, 0.00497913, 0.365822],
    "instance_aware": [0, 0, 0, 0.0361057, 0],
}


@pytest.mark.parametrize("name", LOSSES)
def test_stored_values(name: str) -> None:
    assert LOSSES[name](STUDENT, TEACHER).tolist() == pytest.approx(STORED[name], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_a_finite_fp32_loss_whose_gradient_reaches_the_student(name: str) -> None:
    student = STUDENT.clone().requires_grad_()
    loss = LOSSES[name](student, TEACHER)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"crd"}))
def test_identical_networks_give_zero(name: str) -> None:
    assert LOSSES[name](TEACHER, TEACHER).abs().max().item() < 1e-6


@pytest.mark.parametrize("name", LOSSES)
def test_bf16_agrees_with_fp32(name: str) -> None:
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    exact = LOSSES[name](student.float(), teacher.float())
    # crd's own inputs, exponentials, are rounded once more
    tolerance = 2e-2 if name == "crd" else 1e-5
    torch.testing.assert_close(LOSSES[name](student, teacher), exact, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](STUDENT, TEACHER)
    torch.testing.assert_close(found, LOSSES[name](STUDENT, TEACHER))


@pytest.mark.parametrize("name", OVER_BATCH)
def test_rows_that_do_not_count_change_nothing(name: str) -> None:
    spoilt = STUDENT.clone()
    spoilt[1] = 100
    whole = OVER_BATCH[name](STUDENT[SOME], TEACHER[SOME], ALL[:4])
    torch.testing.assert_close(OVER_BATCH[name](spoilt, TEACHER, SOME), whole)
    assert OVER_BATCH[name](STUDENT, TEACHER, ~ALL).item() == 0


@pytest.mark.parametrize("name", OVER_BATCH)
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    found = OVER_BATCH[name](STUDENT[order], TEACHER[order], SOME[order])
    torch.testing.assert_close(found, OVER_BATCH[name](STUDENT, TEACHER, SOME))


@pytest.mark.parametrize("name", OVER_BATCH)
def test_two_equal_images_have_a_finite_gradient(name: str) -> None:
    student = torch.cat([STUDENT, STUDENT[:1], torch.zeros(1, 6)]).requires_grad_()
    loss = OVER_BATCH[name](student, torch.cat([TEACHER, TEACHER[1:2], TEACHER[:1]]), torch.ones(7).bool())
    loss.backward()
    assert loss.isfinite() and student.grad is not None and student.grad.isfinite().all()


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def normalised(points: Tensor) -> list[list[float]]:
    table = [[math.dist(a, b) for b in points.tolist()] for a in points.tolist()]
    above = [d for row in table for d in row if d > 0]
    return [[d / (sum(above) / len(above)) for d in row] for row in table]


def test_rkd_against_loops() -> None:
    s, t = normalised(STUDENT), normalised(TEACHER)
    distance = functional.rkd_distance(STUDENT, TEACHER, valid_B=ALL).item()
    assert distance == pytest.approx(
        sum(huber(s[i][j] - t[i][j]) for i, j in itertools.product(range(5), repeat=2)) / 25, rel=1e-4
    )

    def angle(points: Tensor, i: int, j: int, k: int) -> float:
        a, b = points[i] - points[j], points[k] - points[j]
        lengths = a.norm().item() * b.norm().item()
        return (a @ b).item() / lengths if lengths else 0.0

    triples = list(itertools.product(range(5), repeat=3))
    expected = sum(huber(angle(STUDENT, *triple) - angle(TEACHER, *triple)) for triple in triples) / len(triples)
    found = functional.rkd_angle(STUDENT, TEACHER, valid_B=ALL).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_sp_and_pkt_against_loops() -> None:
    total_sp = total_pkt = 0.0
    for i in range(5):
        rows_sp, rows_pkt = [], []
        for features in (STUDENT, TEACHER):
            products = [(features[i] @ features[j]).item() for j in range(5)]
            rows_sp.append([p / math.hypot(*products) for p in products])
            cosines = [F.cosine_similarity(features[i], features[j], dim=0).item() / 2 + 0.5 for j in range(5)]
            rows_pkt.append([c / sum(cosines) for c in cosines])
        total_sp += sum((a - b) ** 2 for a, b in zip(*rows_sp, strict=True))
        total_pkt += sum(t * math.log(t / s) for s, t in zip(*rows_pkt, strict=True))
    for name, total in (("sp", total_sp), ("pkt", total_pkt)):
        found = OVER_BATCH[name](STUDENT, TEACHER, ALL).item()
        assert found == pytest.approx(total / 25, rel=1e-3)


def test_crd_by_hand() -> None:
    # m = 2 of N = 4: noise ½. Positive ¾: h = 0.6; negatives ¼ and ½: 1 − h = ⅔ and ½; the third is none.
    found = functional.crd(
        torch.tensor([0.75]), torch.tensor([[0.25, 0.5, 9.0]]), counts_BM=torch.tensor([[1, 1, 0]]), num_samples=4
    )
    assert found.item() == pytest.approx(-math.log(0.6) - math.log(2 / 3) - math.log(0.5), rel=1e-5)
    none = functional.crd(torch.ones(1), torch.ones(1, 3), counts_BM=torch.zeros(1, 3), num_samples=4)
    assert none.item() == pytest.approx(0, abs=1e-6)


def test_queue_relation_against_a_loop() -> None:
    rows = [i for i in range(7) if FILLED[i]]
    for b in range(5):
        log_p = []
        for features in (STUDENT, TEACHER):
            similarities = [F.cosine_similarity(features[b], QUEUE[i], dim=0).item() / 0.5 for i in rows]
            total = math.log(sum(math.exp(x) for x in similarities))
            log_p.append([x - total for x in similarities])
        expected = sum(math.exp(t) * (t - s) for s, t in zip(*log_p, strict=True))
        found = functional.queue_relation(STUDENT, TEACHER, queue_MC=QUEUE, filled_M=FILLED, temperature=0.5)
        assert found[b].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_token_relation_against_a_loop() -> None:
    student, teacher = waves(2, 3, 2, 2), waves(2, 4, 2, 2, phase=1.0)
    for b in range(2):
        expected = 0.0
        for p in range(4):
            log_p = []
            for maps in (student, teacher):
                places = maps[b].flatten(1).T
                similarities = [F.cosine_similarity(places[p], places[q], dim=0).item() / 0.07 for q in range(4)]
                log_p.append(torch.tensor(similarities).log_softmax(0))
            expected += (log_p[1].exp() * (log_p[1] - log_p[0])).sum().item() / 4
        found = functional.token_relation(student, teacher, temperature=0.07)
        assert found[b].item() == pytest.approx(expected, rel=1e-4)


def test_l2d_against_the_loops_of_its_code() -> None:
    student, teacher = waves(5, 3, 4), waves(5, 3, 4, phase=1.1)

    def group(s: Tensor, t: Tensor) -> float:
        tables = normalised(s), normalised(t)
        pairs = itertools.product(range(len(s)), repeat=2)
        return sum(huber(tables[0][i][j] - tables[1][i][j]) for i, j in pairs) / len(s)

    classes = functional.class_aware(student, teacher, positive_BK=POSITIVE)
    for k in range(3):
        rows = POSITIVE[:, k] == 1
        assert classes[k].item() == pytest.approx(group(student[rows, k], teacher[rows, k]), rel=1e-4)
    images = functional.instance_aware(student, teacher, positive_BK=POSITIVE)
    for b in range(4):
        labels = POSITIVE[b] == 1
        assert images[b].item() == pytest.approx(group(student[b, labels], teacher[b, labels]), rel=1e-4)
    assert images[4].item() == 0  # one label alone has no relation


def test_l2d_of_permuted_labels_is_permuted() -> None:
    student, teacher, order = waves(5, 3, 4), waves(5, 3, 4, phase=1.1), torch.tensor([2, 0, 1])
    arguments = (student[:, order], teacher[:, order])
    classes = functional.class_aware(*arguments, positive_BK=POSITIVE[:, order])
    torch.testing.assert_close(classes, functional.class_aware(student, teacher, positive_BK=POSITIVE)[order])
    images = functional.instance_aware(*arguments, positive_BK=POSITIVE[:, order])
    torch.testing.assert_close(images, functional.instance_aware(student, teacher, positive_BK=POSITIVE))


def test_a_label_seen_at_one_place_has_that_places_features() -> None:
    features = waves(1, 3, 2, 2)
    cams = torch.tensor([[[[0.0, 50.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    found = functional.cam_weighted_features(features, cams)
    torch.testing.assert_close(found[0, 0], features[0, :, 0, 1])
    torch.testing.assert_close(found[0, 1], features[0].mean((1, 2)))
    finer = cams.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(functional.cam_weighted_features(features, finer), found)


@pytest.fixture
def torchdistill() -> ModuleType:
    return pytest.importorskip(
        "torchdistill.losses.mid_level", reason="torchdistill is a development extra: pip install -e '.[dev]'"
    )


def test_torchdistill_agrees_on_rkd_and_pkt(torchdistill: ModuleType) -> None:
    student, teacher = {"a": {"output": STUDENT.clone()}}, {"a": {"output": TEACHER.clone()}}
    theirs = {
        "rkd_distance": torchdistill.RKDLoss("a", "a", 1.0, 0.0, "mean"),
        "rkd_angle": torchdistill.RKDLoss("a", "a", 0.0, 1.0, "mean"),
        "pkt": torchdistill.PKTLoss("a", "output", "a", "output"),
    }
    for name, loss in theirs.items():
        ours = OVER_BATCH[name](STUDENT, TEACHER, ALL).item()
        assert ours == pytest.approx(loss(student, teacher).item(), rel=1e-4), name


def test_torchdistills_sp_differs_by_the_norm_of_its_rows(torchdistill: ModuleType) -> None:
    """It calls ``normalize(G, 1)``: that 1 is p, where the dimension was meant; the paper divides by L2 norms."""
    theirs = torchdistill.SPKDLoss("a", "a", "batchmean")({"a": {"output": STUDENT}}, {"a": {"output": TEACHER}})
    of_norm = {}
    for p in (1, 2):
        rows = [F.normalize(features @ features.T, p=p, dim=1) for features in (STUDENT, TEACHER)]
        of_norm[p] = (rows[0] - rows[1]).square().mean().item()
    assert theirs.item() == pytest.approx(of_norm[1], rel=1e-4)
    assert OVER_BATCH["sp"](STUDENT, TEACHER, ALL).item() == pytest.approx(of_norm[2], rel=1e-4)


def test_torchdistill_agrees_on_crd(torchdistill: ModuleType) -> None:
    theirs = torchdistill.CRDLoss("s", "e", "t", 6, 11, 3, 11)
    student, teacher = F.normalize(STUDENT, dim=1), F.normalize(TEACHER, dim=1)
    index, others = torch.arange(5), torch.tensor([[6, 7, 8], [7, 8, 9], [5, 9, 10], [6, 6, 8], [10, 5, 7]])
    memories = (theirs.memory_v1.clone(), theirs.memory_v2.clone())
    places = torch.cat([index[:, None], others], 1)
    found = theirs(
        {
            "s": {"output": student},
            "e": {"input": {"pos_idx": index, "contrast_idx": places}},
        },
        {"t": {"output": teacher}},
    )
    expected = torch.zeros(())
    for features, memory in ((student, memories[1]), (teacher, memories[0])):
        scores = (torch.einsum("bd,bmd->bm", features, memory[places]) / 0.07).exp()
        scores = scores / (scores.mean() * 11)
        expected = (
            expected + functional.crd(scores[:, 0], scores[:, 1:], counts_BM=torch.ones(5, 3), num_samples=11).mean()
        )
    assert expected.item() == pytest.approx(found.item(), rel=1e-4)
