"""The page of all distillation methods, made of what their YAML files and classes say.

python -m tutelage.multilabel.methods.catalog > docs/methods.md
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tutelage.core.build import build, locate
from tutelage.multilabel.methods.method import Method

ROOT = Path(__file__).resolve().parents[4]
CONF = ROOT / "conf" / "method"
COSTS = ROOT / "benchmarks" / "results" / "methods.json"
FAMILIES = {
    "logits": "Logits",
    "maps": "Maps over space",
    "features": "Features",
    "relations": "Relations between images, labels or places",
}
INTRODUCTION = """\
# Distillation methods

Each is `method=<name>`; `method=cam_kd+mld` takes two, each with a λ of its own. λ is calibrated unless
`method.weight.value` gives it. This page is made by `python -m tutelage.multilabel.methods.catalog`, and tested.

- **labels**: `multi` is made for several labels an image; `single` takes a softmax over them and is refused unless
  `method.force_softmax=true`; `any` does not look at labels as a whole.
- **reads** names what is computed of both networks for the method; where they differ, the teacher's stands second.
- **cost** is a step's time and memory over `supervised` with the same teacher forward ({cost}).
  Learned parts as wide as the teacher cost by the square of its channels, of which a ResNet-50 has 2,048 and a ViT-S
  384: `vitkd` generates by two 3×3 convolutions (18·C² weights, here 75 million), `vid` predicts by three 1×1 ones, and
  `reviewkd` and `simkd` have a 3×3 one. That is what their papers propose. From ViT-S to ViT-Ti (224 pixels, batch 4,
  the same CPU) a step of `vitkd` takes 1.18 times that of `supervised`.
"""


def method_names() -> list[str]:
    """Return the methods of task=multilabel, in the order of their families and then by name."""
    found = [path.stem for path in CONF.glob("*.yaml") if ".multilabel." in _yaml(path.stem)["_target_"]]
    return sorted(found, key=lambda name: ([*FAMILIES, "methods"].index(_family(name)), name))


def own_settings(name: str) -> dict[str, Any]:
    """Return what a method is built of: its YAML file without what every term has."""
    return {key: value for key, value in _yaml(name).items() if key not in ("defaults", "weight", "force_softmax")}


def page() -> str:
    """Return the page in Markdown."""
    measured = json.loads(COSTS.read_text()) if COSTS.exists() else {"setting": None, "rows": []}
    costs = {row["method"]: f"{row['time']:.2f} / {row['memory']:.2f}" for row in measured["rows"]}
    about = measured["setting"]
    pair = "{teacher} → {student}, {resolution} pixels, batch {batch}, {device}; `benchmarks/methods.py`"
    cost = pair.format(**about) if about else "not measured yet"
    parts = [INTRODUCTION.format(cost=cost)]
    for family, title in FAMILIES.items():
        names = [name for name in method_names() if _family(name) == family]
        if names:
            rows = "\n".join(_row(name, cost=costs.get(name, "")) for name in names)
            parts.append(f"## {title}\n\n| method | loss | labels | reads | cost |\n|---|---|---|---|---|\n{rows}\n")
            parts.append("\n".join(f"- `{name}`: {_when(name)}" for name in names) + "\n")
    return "\n".join(parts)


def _row(name: str, *, cost: str) -> str:
    kind = locate(own_settings(name), where="method")
    method = build(own_settings(name), where="method")
    assert isinstance(method, Method)
    loss = (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|").rstrip(".")
    student, teacher = (", ".join(sorted(reads)) for reads in (method.student_reads, method.teacher_reads))
    reads = student if student == teacher else f"{student}; {teacher}"
    return f"| `{name}` | {' '.join(loss.split())} | {method.labels} | {reads} | {cost} |"


def _when(name: str) -> str:
    comment = next(line for line in (CONF / f"{name}.yaml").read_text().splitlines() if line.startswith("#"))
    return comment.lstrip("# ")


def _family(name: str) -> str:
    return str(_yaml(name)["_target_"]).split(".")[-3]


def _yaml(name: str) -> dict[str, Any]:
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert isinstance(content, dict)
    return content


if __name__ == "__main__":
    print(page(), end="")
