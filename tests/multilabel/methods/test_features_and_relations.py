"""Every method between networks of unlike kinds, and what must hold of each on features and relations."""

# B batch, K labels

import copy
import io
import math
from typing import Any

import pytest
import torch
from pairs import PAIRS, batch, data_info, make, networks, outputs, permuted, set_up, total, with_padding
from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.methods import catalog
from tutelage.multilabel.methods.features.stages import paired_stages
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.methods.relations.crd import Crd, share_label
from tutelage.multilabel.methods.relations.token_relation import TokenRelation
from tutelage.multilabel.networks.output import NetOutput
from tutelage.multilabel.terms import Term, TermSpec

FEATURES = ["fitnet", "vid", "ofd", "reviewkd", "simkd", "nst", "kdsvd", "wkd_f", "vkd", "lshfm", "ofa", "vitkd"]
RELATIONS = ["rkd", "sp", "pkt", "crd", "token_relation", "l2d"]
METHODS = FEATURES + RELATIONS
# Refused, with the words of the reason.
REFUSED = {
    ("ofd", "cnn_from_vit"): "takes its margins from batch norms",
    ("ofd", "cnn_from_swin"): "takes its margins from batch norms",
    ("simkd", "cnn_from_vit"): "classifies with tokens beside it",
    ("grad_cam", "cnn_from_vit"): "no gradient reaches the last map of the teacher",
    ("grad_cam", "vit_from_cnn"): "no gradient reaches the last map of the student",
}
# Small memories, where the default is the size of a data set.
SETTINGS: dict[str, dict[str, Any]] = {"crd": {"negatives": 8}, "token_relation": {"queue": 8}, "lshfm": {"hashes": 32}}
EVERY = [name for name in catalog.method_names() if name != "supervised"]
CASES = [(name, pair) for name in EVERY for pair in PAIRS if (name, pair) not in REFUSED]


def case(name: str, pair: str, **more: Any) -> tuple[Method, Any, Any]:
    return set_up(name, pair, **SETTINGS.get(name, {}), **more)


@pytest.mark.parametrize(("name", "pair"), REFUSED)
def test_what_cannot_be_done_is_refused_with_the_reason(name: str, pair: str) -> None:
    student, teacher = networks(pair)
    with pytest.raises(ConfigError, match=REFUSED[name, pair]):
        make(name).setup(student, teacher, data_info())


def test_every_method_is_here() -> None:
    assert set(METHODS) < set(EVERY) and len(EVERY) == 34 and len(CASES) == 34 * len(PAIRS) - len(REFUSED)


@pytest.mark.parametrize(("name", "pair"), CASES)
def test_gradient_reaches_the_student_and_all_learned_parts_and_never_the_teacher(name: str, pair: str) -> None:
    method, student, teacher = case(name, pair)
    assert all(parameter.requires_grad for parameter in teacher.parameters())  # it could receive one
    term = Term(TermSpec(method=method)).train()
    student.train()
    of_student, of_teacher = outputs(method, student, teacher, batch())
    assert of_teacher.logits_BK.requires_grad
    weighted, named = term(torch.tensor(1.0), of_student, of_teacher, batch(), progress=0.5)
    weighted.backward()
    assert weighted.isfinite() and all(value.isfinite() for value in named.values())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for part_name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), part_name
    gradients = [p.grad for p in student.backbone.parameters() if p.grad is not None]
    assert gradients and any(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", METHODS)
def test_padding_enters_no_loss(name: str) -> None:
    method, student, teacher = case(name, "cnn_from_cnn")
    other = copy.deepcopy(method)
    with torch.no_grad():
        expected = total(method, student, teacher, batch())
        torch.testing.assert_close(
            total(other, student, teacher, with_padding(batch())), expected, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    method, student, teacher = case(name, "cnn_from_cnn")
    other = copy.deepcopy(method)
    with torch.no_grad():
        expected = total(method, student, teacher, batch())
        found = total(other, student, teacher, permuted(batch(), torch.tensor([3, 0, 5, 4, 1, 2])))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_bf16_agrees_with_fp32(name: str) -> None:
    method, student, teacher = case(name, "cnn_from_cnn")
    other = copy.deepcopy(method)
    with torch.no_grad():
        of_student, of_teacher = outputs(method, student, teacher, batch())
        rounded = [rounded_output(output) for output in (of_student, of_teacher)]
        expected = method(back_to_fp32(rounded[0]), back_to_fp32(rounded[1]), batch(), 0.0)
        with torch.autocast("cpu", torch.bfloat16):
            found = other(*rounded, batch(), 0.0)
    for key, value in expected.items():
        assert found[key].dtype == torch.float32, key
        # What is learned (projections) computes in bf16; losses do not.
        torch.testing.assert_close(found[key], value, rtol=0.05, atol=1e-3)


def rounded_output(output: NetOutput) -> NetOutput:
    return _mapped(output, torch.bfloat16)


def back_to_fp32(output: NetOutput) -> NetOutput:
    return _mapped(output, torch.float32)


def _mapped(output: NetOutput, dtype: torch.dtype) -> NetOutput:
    def cast(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(dtype)

    return NetOutput(
        logits_BK=output.logits_BK.to(dtype),
        cams_BKHW=cast(output.cams_BKHW),
        stages=tuple(stage.to(dtype) for stage in output.stages),
        features={name: value.to(dtype) for name, value in output.features.items()},
        feature_map_BCHW=cast(output.feature_map_BCHW),
        embedding_BC=cast(output.embedding_BC),
        label_embeddings_BKD=cast(output.label_embeddings_BKD),
    )


@pytest.mark.parametrize("name", METHODS)
def test_what_is_learned_is_saved_and_found_again(name: str) -> None:
    method, student, teacher = case(name, "cnn_from_cnn")
    with torch.no_grad():
        total(method, student, teacher, batch())  # memories, queues and steps move on
        file = io.BytesIO()
        torch.save(method.state_dict(), file)
        file.seek(0)
        after = total(method, student, teacher, batch())
        torch.manual_seed(99)
        restored, other_student, _ = case(name, "cnn_from_cnn")
        other_student.load_state_dict(student.state_dict())
        restored.load_state_dict(torch.load(file, weights_only=True))
        torch.testing.assert_close(total(restored, other_student, teacher, batch()), after)
    assert not any("teacher.backbone" in key for key in method.state_dict())


def test_l2d_refuses_a_decoder_that_has_no_embedding_of_each_label() -> None:
    student, teacher = networks("cnn_from_cnn", head="MlDecoder")
    for network, where in ((student, r"^head\.groups"), (teacher, r"teacher\.head\.groups")):
        dim, network.head.label_embedding_dim = network.head.label_embedding_dim, None  # fewer groups than labels
        with pytest.raises(ConfigError, match=f"{where}: l2d compares an embedding of each label"):
            make("l2d").setup(student, teacher, data_info())
        network.head.label_embedding_dim = dim


@pytest.mark.parametrize("name", ["nst", "kdsvd", "rkd", "sp", "pkt", "l2d"])
def test_identical_networks_give_zero(name: str) -> None:
    _, teacher = networks("cnn_from_cnn")
    method, student = make(name), copy.deepcopy(teacher)
    method.setup(student, teacher, data_info())
    with torch.no_grad():
        assert total(method, student, teacher, batch()).abs().item() < 1e-4


def test_stages_are_paired_from_the_last_on() -> None:
    student, teacher = networks("cnn_from_swin")  # five stages, the stem among them, and four
    pairs = paired_stages(student, teacher, most=99)
    assert [(pair.student, pair.teacher) for pair in pairs] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert [pair.teacher_channels for pair in pairs] == [16, 32, 64, 128]
    assert [pair.student for pair in paired_stages(student, teacher, most=2)] == [3, 4]


def test_a_network_without_stages_is_refused_by_its_name() -> None:
    student, teacher = networks("cnn_from_cnn")
    teacher.anatomy = _without_stages(teacher.anatomy)
    for name in ("fitnet", "vid", "ofd", "reviewkd", "nst", "kdsvd", "vitkd"):
        with pytest.raises(ConfigError, match=r"model\.(teacher|student)\.name: timm shows no stages of test_resnet"):
            make(name).setup(student, teacher, data_info())


def _without_stages(anatomy: Any) -> Any:
    from dataclasses import replace

    return replace(anatomy, stages=())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("fitnet", {"stage": 9}, r"method\.stage: 9 is no stage"),
        ("fitnet", {"stage": 0}, r"method\.stage: 0 is no stage"),
        ("kdsvd", {"stages": 1}, r"method\.stages: kdsvd compares a stage with the next"),
        ("wkd_f", {"grid": 4}, r"method\.grid: 4 cells a side, where a map has 2 places"),
        ("vitkd", {"hidden": 1.0}, r"method\.hidden: 1\.0 is no share"),
        ("vid", {"initial_variance": 0.0}, r"method\.initial_variance: 0\.0 is not above 0"),
        ("crd", {"temperature": -1.0}, r"method\.temperature: -1\.0 is not above 0"),
        ("l2d", {"class_weight": -1.0}, r"method\.class_weight: -1\.0 is negative"),
    ],
)
def test_settings_without_meaning_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    student, teacher = networks("cnn_from_cnn")
    with pytest.raises(ConfigError, match=words):
        make(name, **settings).setup(student, teacher, data_info())


def test_vids_variances_begin_where_they_should_and_are_trained() -> None:
    method, student, teacher = case("vid", "cnn_from_cnn")
    assert all(variance.detach() == pytest.approx(torch.full_like(variance, 5.0)) for variance in method.variances())
    before = [variance.detach() for variance in method.variances()]
    optimiser = torch.optim.SGD(method.parameters(), lr=1.0)
    total(method, student, teacher, batch()).backward()
    optimiser.step()
    for old, new in zip(before, method.variances(), strict=True):
        assert (old != new).all()


def test_ofds_margins_are_of_the_teachers_batch_norms() -> None:
    method, _, teacher = case("ofd", "cnn_from_cnn")
    norm = teacher.stage_norms()[-1]
    assert norm is not None and norm.bias[0].abs() > 0.01
    last = method.get_buffer("margin_3_C")
    sample = norm.bias[0] + norm.weight[0] * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert last[0].item() == pytest.approx(sample[sample < 0].mean().item(), rel=0.03)


def test_lshfms_bias_halves_the_training_set() -> None:
    method, _, teacher = case("lshfm", "cnn_from_cnn")
    with torch.no_grad():
        padded = with_padding(batch())
        seen = teacher(padded.images_BCHW, reads=method.teacher_reads)
        method.calibrate([(seen, padded)])
        hashes = seen.embedding_BC[:-1] @ method.weight_NC.T + method.bias_N
    # Of six samples, the padding left out, the lower of the two middle ones lies at 0.
    assert ((hashes > 1e-5).sum(0) == 3).all() and ((hashes < -1e-5).sum(0) == 2).all()


def test_wkd_fs_loss_falls_along_half_a_cosine() -> None:
    method, student, teacher = case("wkd_f", "cnn_from_cnn", decay_from=0.5)
    with torch.no_grad():
        found = [total(method, student, teacher, batch(), progress=p).item() for p in (0.0, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([found[0], found[0], found[0] / 2, 0.0], abs=1e-6)


def test_vkds_projection_stays_orthogonal() -> None:
    method, student, teacher = case("vkd", "cnn_from_cnn")
    optimiser = torch.optim.SGD(method.parameters(), lr=1.0)
    for _ in range(2):
        total(method, student, teacher, batch()).backward()
        optimiser.step()
    weight = method.projection(torch.eye(student.shape.embedding_dim)).T
    product = weight @ weight.T if weight.shape[0] < weight.shape[1] else weight.T @ weight
    torch.testing.assert_close(product, torch.eye(len(product)), atol=1e-4, rtol=0)


def test_crds_negatives_share_no_label_and_may_share_none() -> None:
    a = torch.tensor([[1, 0, 0], [0, 0, 0], [-1, 0, 1]])
    b = torch.tensor([[1, 0, 0], [0, 1, 0], [-1, 1, 0], [0, 0, 0]])
    assert share_label(a, b).tolist() == [
        [True, False, True, False],
        [False, False, False, False],  # an image without labels shares none
        [True, False, False, False],  # label 0, not known of it, is the first's; two unknowns share nothing known
    ]


def test_crds_memory_is_of_samples() -> None:
    method, student, teacher = case("crd", "cnn_from_cnn")
    assert isinstance(method, Crd)
    with torch.no_grad():
        total(method, student, teacher, with_padding(batch()))
        assert method.seen_N.tolist() == [True] * 6 + [False] * 6 + [True]  # the last is for padding
        assert torch.equal(method.labels_NK[:6], batch().target_BK)
        # A first visit stores the embedding itself, of norm 1.
        first = method.memory_student_ND[:6].clone()
        torch.testing.assert_close(first.norm(dim=1), torch.ones(6))
        method.embed_student.weight.copy_(method.embed_student.weight.roll(1, 0))
        seen = student(batch().images_BCHW, reads=method.student_reads).embedding_BC
        second = nn.functional.normalize(method.embed_student(seen), dim=1)
        total(method, student, teacher, batch())
        # then it is averaged with the next, momentum ½
        averaged = nn.functional.normalize(first + second, dim=1)
        torch.testing.assert_close(method.memory_student_ND[:6], averaged, rtol=1e-4, atol=1e-5)
        # Candidates differ from step to step, and are the same for the same step.
        one, other = method._candidates(), method._candidates()
        method.step += 1
        assert torch.equal(one, other) and not torch.equal(one, method._candidates())
        assert one.min() >= 0 and one.max() < 12


def test_the_queue_holds_the_last_teachers_embeddings() -> None:
    method, student, teacher = case("token_relation", "cnn_from_cnn")
    assert isinstance(method, TokenRelation) and len(method.queue_MC) == 6  # half of 12 samples
    with torch.no_grad():
        padded = with_padding(batch())
        method._push(torch.ones(1, method.queue_MC.shape[1]), torch.tensor([True]))
        total(method, student, teacher, permuted(padded, torch.tensor([6, 0, 1])))
        embedding = teacher(padded.images_BCHW, reads=frozenset({"embedding_BC"})).embedding_BC
    assert method.filled_M.tolist() == [False, True, True, True, False, False]
    torch.testing.assert_close(method.queue_MC[1:3], nn.functional.normalize(embedding[:2], dim=1))


def test_l2d_reads_label_embeddings_where_the_heads_have_them() -> None:
    method, student, teacher = case("l2d", "cnn_from_vit", head="MlDecoder")
    assert method.student_reads == method.teacher_reads == {"logits_BK", "label_embeddings_BKD"}
    loss = total(method, student, teacher, batch())
    loss.backward()
    assert student.head.embed.weight.grad is not None and math.isfinite(loss.item())
    plain, _, _ = case("l2d", "cnn_from_vit")
    assert "label_embeddings_BKD" not in plain.student_reads


def test_l2ds_instances_do_not_depend_on_the_padding_of_labels() -> None:
    """Labels up to the richest image's number are looked at; what an image lacks of them does not count."""
    method, student, teacher = case("l2d", "cnn_from_cnn")
    with torch.no_grad():
        of_student, of_teacher = outputs(method, student, teacher, batch())
        found = method(of_student, of_teacher, batch(), 0.0)["instance"]
        method.max_positives = 4
        torch.testing.assert_close(method(of_student, of_teacher, batch(), 0.0)["instance"], found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pair"), [("reviewkd", "cnn_from_cnn"), ("vitkd", "vit_from_cnn"), ("rkd", "cnn_from_cnn")]
)
def test_the_real_compiler_changes_nothing(name: str, pair: str) -> None:
    """Stages before their activations and a ViT's blocks are kept by hooks, which the compiler must not lose."""
    expected = total(*case(name, pair), batch())
    method, student, teacher = case(name, pair)
    student.compile_backbone()
    teacher.compile_backbone()
    found = total(method, student, teacher, batch())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    found.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
