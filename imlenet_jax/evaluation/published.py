"""Published figures, each with its source: `test` and the leaderboard put them beside ours."""

from typing import NamedTuple

from imlenet_jax.data.tasks import SUPERCLASS

PTBXL_RECORDS = 21_799
"""In all of PTB-XL 1.0.3; 1.0.1, which the papers used, has 38 more."""

TORCH_MODELS = ("ecgnet", "resnet101")
"""Networks whose published accuracy and max F1 are those of logits, not probabilities (``torch_test.py``)."""

REDDY = "Reddy et al. 2021, doi 10.1109/SMC52423.2021.9658706: fold 10 at 100 Hz, a single run, no interval given"
STRODTHOFF = (
    "Strodthoff et al. 2021, doi 10.1109/JBHI.2020.3022989: fold 10 at 100 Hz, crops of 2.5 s, maximum over windows"
)
MEHARI = "Mehari and Strodthoff 2022, arXiv 2211.07579: fold 10 at 100 Hz, crops of 2.5 s"


class Figure(NamedTuple):
    """A published figure of a network, on all of PTB-XL.

    Attributes:
        model, task: as flags name them.
        metric: as `imlenet_jax.evaluation.report.evaluate` names it.
        value: as printed.
        source: the paper, and how its figure was made.
    """

    model: str
    task: str
    metric: str
    value: float
    source: str


_IMLE_NET_TABLE = {  # macro AUC, mean accuracy at 0.5, max F1 over 10 thresholds
    "imle_net": (0.9216, 0.8885, 0.8057),
    "rajpurkar": (0.9155, 0.8791, 0.7895),
    "ecgnet": (0.9101, 0.8735, 0.7712),
    "resnet101": (0.8952, 0.8678, 0.7558),
    "mousavi": (0.8654, 0.8419, 0.7315),
}


def _of_logits(model: str, metric: str) -> str:
    return f"{metric}_of_logits" if model in TORCH_MODELS and metric != "macro_auc" else metric


_AUC_BY_TASK = {
    ("xresnet1d101", STRODTHOFF): {
        **{"superclass": 0.928, "subclass": 0.929, "diagnostic": 0.937},
        **{"all": 0.925, "form": 0.896, "rhythm": 0.957},
    },
    ("s4", MEHARI): {"superclass": 0.932, "all": 0.941},
}

FIGURES: tuple[Figure, ...] = (
    *(
        Figure(model, SUPERCLASS, _of_logits(model, metric), value, REDDY)
        for model, values in _IMLE_NET_TABLE.items()
        for metric, value in zip(("macro_auc", "mean_accuracy_at_0.5", "max_f1_10_thresholds"), values, strict=True)
    ),
    *(
        Figure(model, task, "macro_auc", value, source)
        for (model, source), values in _AUC_BY_TASK.items()
        for task, value in values.items()
    ),
)
"""All of them."""


def published(model: str | None, task: str = SUPERCLASS) -> list[Figure]:
    """The figures of a network for a task; none where nothing is published."""
    return [figure for figure in FIGURES if (figure.model, figure.task) == (model, task)]
