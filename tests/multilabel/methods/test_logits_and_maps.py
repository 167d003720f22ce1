"""What must hold of every method of logits/ and maps/, with the values of its YAML and of some other settings."""

# B batch, K labels, C channels, H W map

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
import yaml
from torch import Tensor, distributed

from tutelage.core.build import build
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.matching import Matching
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.networks.output import NetOutput
from tutelage.multilabel.terms import Term, TermSpec

CONF = Path(__file__).resolve().parents[3] / "conf" / "method"
LOGITS = ("kd", "mse", "mld", "tld", "dkd", "dist", "logit_std", "nkd", "ps", "mbd")
MAPS = ("cam_kd", "cat_kd", "cwd", "sdd", "grad_cam", "at")
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in LOGITS + MAPS),
    *(("cam_kd", {"divergence": divergence, "support": "positives"}) for divergence in ("l1", "cosine")),
    *(("cam_kd", {"support": support}) for support in ("teacher_top", "teacher_above", "teacher_probability")),
    ("cam_kd", {"logit_weight": 0.5, "spatial_weight": 2.0}),
    ("cat_kd", {"normalise": True}),
    ("cwd", {"temperature": 4.0}),
    ("sdd", {"host": "mse", "grids": [None, 3]}),
    ("grad_cam", {"divergence": "l1"}),
]
B, K = 6, 5


def make(name: str, **changes: Any) -> Method:
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    del node["defaults"]
    method: Method = build(node | changes, where="method")
    if isinstance(method, Matching) and method.student_view == "grad_cams":
        method.most = K  # as setup does; the networks are not needed for it
    return method


def output(seed: int, *, side: int = 4, dtype: torch.dtype = torch.float32) -> NetOutput:
    generator = torch.Generator().manual_seed(seed)
    cams = (torch.randn(B, K, side, side, generator=generator) * 3).to(dtype)
    bias = torch.randn(K, generator=generator).to(dtype)
    stages = tuple(
        torch.randn(B, channels, grid, grid, generator=generator).to(dtype)
        for channels, grid in ((3, 2 * side), (4, side), (5, -(-side // 2)))
    )
    return complete(NetOutput(cams.mean((2, 3)) + bias, cams_BKHW=cams, stages=stages))


def complete(shown: NetOutput) -> NetOutput:
    """Let Grad-CAMs of chosen labels be the maps."""
    maps = dataclasses.replace(shown)
    return dataclasses.replace(shown, grad_cams=maps.chosen_cams)


def select(shown: NetOutput, rows: Tensor | slice = slice(None), labels: Tensor | slice = slice(None)) -> NetOutput:
    assert shown.cams_BKHW is not None
    return complete(
        NetOutput(
            shown.logits_BK[rows][:, labels],
            cams_BKHW=shown.cams_BKHW[rows][:, labels],
            stages=tuple(stage[rows] for stage in shown.stages),
        )
    )


def learnable(shown: NetOutput) -> tuple[NetOutput, list[Tensor]]:
    assert shown.cams_BKHW is not None
    logits, cams = shown.logits_BK.clone().requires_grad_(), shown.cams_BKHW.clone().requires_grad_()
    stages = [stage.clone().requires_grad_() for stage in shown.stages]
    return complete(NetOutput(logits, cams_BKHW=cams, stages=tuple(stages))), [logits, cams, *stages]


def batch(single: bool = False) -> Batch:
    if single:
        target_BK = torch.nn.functional.one_hot(torch.tensor([0, 3, 1, 4, 2, 0]), K)
    else:
        target_BK = torch.tensor(
            [[1, 0, 1, 0, 0], [0, 1, 0, -1, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [-1, 1, 1, 0, 0], [1, 0, -1, -1, 1]]
        )
    images = torch.zeros(B, 3, 1, 1, dtype=torch.uint8)
    return Batch(images, target_BK.to(torch.int8), torch.arange(B), torch.zeros(B, dtype=torch.int64))


def total(method: Method, student: NetOutput, teacher: NetOutput, given: Batch) -> Tensor:
    return torch.stack(list(method(student, teacher, given, 0.5).values())).sum()


every_setting = pytest.mark.parametrize(("name", "changes"), SETTINGS, ids=lambda value: str(value))


@every_setting
def test_gradient_reaches_the_student_and_no_teacher_that_could_take_it(name: str, changes: dict[str, Any]) -> None:
    student, student_leaves = learnable(output(1))
    teacher, teacher_leaves = learnable(output(2, side=8))
    term = Term(TermSpec(method=make(name, **changes)))
    loss, _ = term(torch.tensor(1.0), student, teacher, batch(), progress=0.5)
    loss.backward()
    gradients = [leaf.grad for leaf in student_leaves if leaf.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0
    assert all(leaf.grad is None for leaf in teacher_leaves)


@every_setting
def test_identical_networks_give_zero(name: str, changes: dict[str, Any]) -> None:
    loss = total(make(name, **changes), output(1), output(1), batch())
    if name == "nkd":  # cross-entropies: what is left is the teacher's own entropy
        assert loss > 0.1
    else:
        assert abs(loss.item()) < 2e-6


@every_setting
def test_different_networks_differ(name: str, changes: dict[str, Any]) -> None:
    assert abs(total(make(name, **changes), output(1), output(2), batch()).item()) > 1e-3


@every_setting
def test_order_does_not_matter(name: str, changes: dict[str, Any]) -> None:
    method, given = make(name, **changes), batch()
    student, teacher = output(1), output(2, side=8)
    expected = total(method, student, teacher, given)
    rows, labels = torch.tensor([4, 0, 5, 2, 1, 3]), torch.tensor([3, 0, 4, 1, 2])
    shuffled = Batch(given.images_BCHW, given.target_BK[rows][:, labels], given.index_B[rows], given.view_B)
    found = total(method, select(student, rows, labels), select(teacher, rows, labels), shuffled)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@every_setting
def test_bf16_agrees_with_fp32(name: str, changes: dict[str, Any]) -> None:
    """What the networks show is rounded already: from there on, all arithmetic is in fp32."""
    method = make(name, **changes)
    rounded = output(1, dtype=torch.bfloat16), output(2, dtype=torch.bfloat16)
    exact = []
    for shown in rounded:
        assert shown.cams_BKHW is not None
        stages = tuple(stage.float() for stage in shown.stages)
        exact.append(complete(NetOutput(shown.logits_BK.float(), cams_BKHW=shown.cams_BKHW.float(), stages=stages)))
    found = total(method, *rounded, batch())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, total(method, *exact, batch()), rtol=1e-5, atol=1e-6)


@every_setting
def test_rows_of_padding_enter_nothing(name: str, changes: dict[str, Any]) -> None:
    method, given = make(name, **changes), batch()
    student, teacher = output(1), output(2)
    expected = total(method, select(student, slice(4)), select(teacher, slice(4)), Batch(*(x[:4] for x in given)))
    padded = given._replace(index_B=torch.tensor([0, 1, 2, 3, -1, -1]))
    torch.testing.assert_close(total(method, student, teacher, padded), expected, rtol=1e-5, atol=1e-6)
    nothing = given._replace(index_B=torch.full((B,), -1), target_BK=torch.full_like(given.target_BK, -1))
    learns, leaves = learnable(student)
    none = total(method, learns, teacher, nothing)
    none.backward()
    assert none.item() == 0
    assert all(leaf.grad is None or not leaf.grad.any() for leaf in leaves)  # and no NaN, which is true


@every_setting
def test_unknown_labels_enter_nothing(name: str, changes: dict[str, Any]) -> None:
    if name == "at":
        return  # looks at no labels
    method, given = make(name, **changes), batch()
    unknown = given.target_BK < 0
    teacher = output(2)
    losses = []
    for noise in (0.0, 50.0):
        student = output(1)
        assert student.cams_BKHW is not None
        student.logits_BK[unknown] += noise
        student.cams_BKHW[unknown] += noise * torch.arange(16.0).reshape(4, 4)
        losses.append(total(method, complete(student), teacher, given))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)


@every_setting
def test_no_value_is_asked_of_the_device(name: str, changes: dict[str, Any]) -> None:
    """Meta tensors have no values: to branch on one, or to select by one, would wait for a GPU at every step."""

    def on_meta(shown: NetOutput) -> NetOutput:
        assert shown.cams_BKHW is not None
        stages = tuple(stage.to("meta") for stage in shown.stages)
        return complete(NetOutput(shown.logits_BK.to("meta"), cams_BKHW=shown.cams_BKHW.to("meta"), stages=stages))

    given = Batch(*(value.to("meta") for value in batch()))
    assert total(make(name, **changes), on_meta(output(1)), on_meta(output(2, side=7)), given).is_meta


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("sides", [(4, 4), (4, 6), (10, 7), (7, 3), (1, 4)])
def test_unequal_grids(name: str, sides: tuple[int, int]) -> None:
    method = make(name)
    loss = total(method, output(1, side=sides[0]), output(2, side=sides[1]), batch())
    assert torch.isfinite(loss) and loss >= 0


@pytest.mark.parametrize(
    ("support", "most"), [("positives", 2), ("positives", 4), ("teacher_top", 3)], ids=lambda value: str(value)
)
def test_maps_of_chosen_labels_cost_what_those_of_all_do(support: str, most: int) -> None:
    for divergence in ("mse", "l1", "cosine"):
        method = make("cam_kd", support=support, divergence=divergence)
        assert isinstance(method, Matching)
        student, leaves = learnable(output(1))
        whole = total(method, student, output(2), batch())
        whole.backward()
        method.most = most
        method._look_at(student="label_cams", teacher="label_cams")
        chosen, chosen_leaves = learnable(output(1))
        few = total(method, chosen, output(2), batch())
        few.backward()
        torch.testing.assert_close(few, whole)
        torch.testing.assert_close(chosen_leaves[1].grad, leaves[1].grad)


def gradients(rows: slice, wrap: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, Tensor]:
    """The gradient of a weight that all rows share, for every setting."""
    found = {}
    for name, changes in SETTINGS:
        weight = torch.ones((), requires_grad=True)
        shown = select(output(1), rows)
        assert shown.cams_BKHW is not None
        ramp = 1 + (weight - 1) * torch.arange(B)[rows] / 3  # 1 everywhere, each row with a slope of its own
        student = complete(
            NetOutput(
                shown.logits_BK * ramp[:, None] ** 2 + (weight - 1) * torch.arange(K),
                cams_BKHW=shown.cams_BKHW * ramp[:, None, None, None] + weight.sin() - torch.tensor(1.0).sin(),
                stages=tuple(stage + weight - 1 for stage in shown.stages),
            )
        )
        given = batch()._replace(index_B=torch.tensor([0, 1, 2, 3, 4, -1]))
        total(make(name, **changes), student, select(output(2), rows), Batch(*(x[rows] for x in given))).backward()
        assert weight.grad is not None
        found[f"{name} {changes}"] = weight.grad
    return found


def process(rank: int, out: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    averaged = gradients(slice(rank, None, 2))  # as core.batches deals them out
    for gradient in averaged.values():
        distributed.all_reduce(gradient)
        gradient /= 2
    if rank == 0:
        torch.save(averaged, out / "averaged.pt")
    distributed.destroy_process_group()


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(process, args=(tmp_path,), nprocs=2, start_method="fork")
    averaged, alone = torch.load(tmp_path / "averaged.pt"), gradients(slice(None))
    assert len(alone) == len(SETTINGS)
    assert not [setting for setting, gradient in alone.items() if abs(gradient) < 1e-5]
    torch.testing.assert_close(averaged, alone, rtol=1e-4, atol=1e-6)


# --- what sdd is: the bridge between logits and maps -----------------------------------------------------------------


def with_bias(shown: NetOutput, bias_K: Tensor) -> NetOutput:
    assert shown.cams_BKHW is not None
    return dataclasses.replace(shown, logits_BK=shown.cams_BKHW.mean((2, 3)) + bias_K)


def value_and_gradients(method: Method) -> tuple[Tensor, ...]:
    """A method's loss, and its gradients at the maps and the biases, from which the student's logits are made."""
    cams, bias_K = output(1).cams_BKHW, torch.linspace(-1, 1, K).requires_grad_()
    assert cams is not None
    cams = cams.requires_grad_()
    student = complete(NetOutput(cams.mean((2, 3)) + bias_K, cams_BKHW=cams))
    loss = total(method, student, with_bias(output(2), torch.linspace(-1, 1, K)), batch())
    gradients = torch.autograd.grad(loss, [cams, bias_K], allow_unused=True)
    return loss, *(torch.zeros(K) if gradient is None else gradient for gradient in gradients)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sdd_on_one_region_is_mld(temperature: float) -> None:
    sdd, mld = make("sdd", grids=[1], temperature=temperature), make("mld", temperature=temperature)
    torch.testing.assert_close(value_and_gradients(sdd), value_and_gradients(mld))
    host_mse = make("sdd", grids=[1], host="mse")
    torch.testing.assert_close(value_and_gradients(host_mse), value_and_gradients(make("mse")))


def test_sdd_on_the_maps_own_grid_is_cam_kd() -> None:
    method, given, bias_K = make("sdd", grids=[None], host="mse", complementary_weight=1.0), batch(), torch.randn(K)
    student, teacher = with_bias(output(1), bias_K), with_bias(output(2), bias_K)
    torch.testing.assert_close(total(method, student, teacher, given), total(make("cam_kd"), student, teacher, given))
    loss, of_cams, of_bias = value_and_gradients(method)
    expected_loss, expected_of_cams, none = value_and_gradients(make("cam_kd"))
    torch.testing.assert_close((loss, of_cams), (expected_loss, expected_of_cams))
    assert of_bias.abs().sum() > 0.1 and not none.any()  # cam_kd teaches no bias
    # With biases of their own they differ by what the logits have beside the maps: (Δz)² − (Δ(z − b))².
    student, teacher = output(1), output(2)
    logits = total(make("mse"), student, teacher, given)
    maps = total(make("cam_kd", spatial_weight=0.0), student, teacher, given)
    found = total(method, student, teacher, given) - total(make("cam_kd"), student, teacher, given)
    torch.testing.assert_close(found, logits - maps, rtol=1e-4, atol=1e-4)


def test_sdd_against_a_loop() -> None:
    method, given, student, teacher = make("sdd", temperature=2.0), batch(), output(1), output(2)
    expected = 0.0
    for i in range(B):
        for k in range(K):
            present = given.target_BK[i, k] == 1
            if given.target_BK[i, k] < 0:
                continue
            values = []
            for grid in (1, 2, 4):
                cell = 4 // grid
                for y in range(grid):
                    for x in range(grid):
                        s, t = (
                            o.cams_BKHW[i, k, y * cell : (y + 1) * cell, x * cell : (x + 1) * cell].mean()  # type: ignore[index]
                            + o.logits_BK[i, k]
                            - o.cams_BKHW[i, k].mean()  # type: ignore[index]
                            for o in (student, teacher)
                        )
                        p, q = (t / 2).sigmoid(), (s / 2).sigmoid()
                        kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
                        local, whole = (t > 0) == present, (teacher.logits_BK[i, k] > 0) == present
                        values.append((1.0 if local == whole else 2.0) * 4 * kl.item())
            expected += sum(values) / len(values)
    assert total(method, student, teacher, given).item() == pytest.approx(expected / B, rel=1e-4)
