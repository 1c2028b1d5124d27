"""Claims are those of the logs, the clock sees no compilation, and a run is the one that `fit` makes."""

import json
from types import SimpleNamespace

import pytest
from scipy import stats

import benchmarks.time_to_auc
from benchmarks.parts.speedrun import claims, format_claims, p_not_above, records_page, why_no_record
from benchmarks.readme import RECORDS
from benchmarks.time_to_auc import make_recipe, train_one
from imlenet_jax.checkpoints.description import SCORE
from imlenet_jax.data.loader import select
from imlenet_jax.data.shards import open_shards
from imlenet_jax.errors import UserError
from imlenet_jax.training.api import describe
from imlenet_jax.training.loop import fit
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.stopping import NotFinite
from imlenet_jax.training.trainer import Trainer
from tests.calls import call

CONFIG = {"kernel_size": 2, "filters": 1, "blocks": 1, "widen_every": 1, "dropout": 0.2}  # has BatchNorm and dropout
NOWHERE = SimpleNamespace(save=lambda *_: None, finish=lambda: None)
FINAL = [0.81, 0.82, 0.80, 0.83, 0.82]


def result(final=FINAL, target=0.79, date="2026-11-28T10:00:00+00:00", pace=1.0, spread=1):
    """A result of two epochs per run, the first at an AUC of 0.795; run i takes 10 + i seconds, spread and slowed down."""
    runs = [
        {
            "seed": seed,
            "compile_s": 3.0,
            "epochs": [
                {"epoch": 1, "seconds": pace * (5 + seed), "validation_s": 1.0, SCORE: 0.795, "train_loss": 0.5},
                {
                    "epoch": 2,
                    "seconds": pace * (12 + spread * (seed - 2)),
                    "validation_s": 1.0,
                    SCORE: auc,
                    "train_loss": 0.4,
                },
            ],
        }
        for seed, auc in enumerate(final)
    ]
    return {
        "machine": {"date": date, "devices": "1 x H100 (gpu)", "cpu": "EPYC", "cores": 2},
        "data": {
            "source": "PTB-XL",
            "fingerprint": "0123456789abcdef",
            "sampling_rate": 100,
            "train_records": 17084,
            "validation_records": 2146,
        },
        "model": "mousavi",
        "target": target,
        "recipe": {"epochs": 2, "batchsize": 32, "lr": 0.003, "dtype": "float32"},
        "changed": {"lr": 0.003},
        "runs": runs,
    }


def test_claims_of_known_logs():
    found = claims(result()["runs"], 0.79)
    low, high = stats.t.interval(0.95, 4, 12, stats.sem([10, 11, 12, 13, 14]))
    assert found["seconds"] == pytest.approx({"mean": 12, "low": low, "high": high, "std": 2.5**0.5, "n": 5})
    assert found["seconds_to_target"]["mean"] == pytest.approx(7) and found["never_reached"] == 0
    assert found["final_auc"]["mean"] == pytest.approx(0.816)
    assert found["p"] == pytest.approx(stats.ttest_1samp(FINAL, 0.79, alternative="greater").pvalue)
    assert found["p"] == pytest.approx(0.003494, abs=5e-7)
    assert why_no_record(result()) == []
    assert "take 12.0 s [10.0, 14.0] of training" in format_claims(result())
    assert format_claims(result()).endswith("\na record by the rules of benchmarks/records/README.md")


def test_the_last_epoch_counts_and_a_run_that_never_gets_there_leaves_no_mean():
    missed = result([0.81, 0.82, 0.80, 0.83, 0.70], target=0.80)
    found = claims(missed["runs"], 0.80)
    assert found["never_reached"] == 1 and found["seconds_to_target"] is None
    assert claims(missed["runs"], 0.79)["seconds_to_target"]["mean"] == pytest.approx(7)  # in the first epoch
    assert found["p"] == pytest.approx(
        stats.ttest_1samp([0.81, 0.82, 0.80, 0.83, 0.70], 0.80, alternative="greater")[1]
    )
    text = format_claims(missed)
    assert "1 of 5 runs never reach 0.8, so there is no mean time to it" in text
    assert text.splitlines()[-1] == "no record: p = 0.62 is not below 0.01"


def test_equal_aucs_have_a_p():
    assert (p_not_above([0.9] * 3, 0.8), p_not_above([0.75] * 3, 0.75), p_not_above([0.5] * 3, 0.75)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda runs: runs.pop(), "4 runs are fewer than 5"),
        (lambda runs: runs[0].update(seed=7), "its seeds are not 0, 1, 2 and so on"),
        (lambda runs: runs[0]["epochs"].pop(0), "not every run has all its epochs"),
    ],
)
def test_what_the_rules_have_against_a_result(change, reason, tmp_path):
    doubtful = result(target=0.7)
    change(doubtful["runs"])
    assert why_no_record(doubtful) == [reason]
    (tmp_path / "a.json").write_text(json.dumps(doubtful))
    with pytest.raises(UserError, match=rf"a\.json is no record \({reason}\): move it elsewhere"):
        records_page(tmp_path)


def test_page_is_that_of_the_committed_records():
    assert (RECORDS / "README.md").read_text() == records_page(RECORDS), "run python -m benchmarks.readme"


def test_records_are_ranked_and_ties_go_to_the_older(tmp_path):
    results = {
        "slow": result(date="2026-01-01T10:00:00+00:00", pace=2),
        "newer": result(date="2026-03-01T10:00:00+00:00", pace=1.0001),
        "older": result(date="2026-02-01T10:00:00+00:00"),
        "noisy": result(date="2026-01-01T10:00:00+00:00", spread=3),
        "other": result(target=0.7),
    }
    for name, each in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(each))
    page = records_page(tmp_path)
    ranked = [
        (line.split(" | ")[0], name) for line in page.splitlines() for name in results if f"({name}.json)" in line
    ]
    assert ranked[0] == ("| 1", "other")  # a table of its own, as its target is another
    assert ranked[1:] == [("| 1", "older"), ("| 1", "newer"), ("| 3", "noisy"), ("| 4", "slow")]
    assert page.count("## PTB-XL, 17,084 recordings to train on: 0.7") == 2
    assert "| `mousavi` | 2 | batchsize 32, lr 0.003, dtype float32 | 1 x H100 (gpu) | 12.0 s [10.0, 14.0] |" in page
    (tmp_path / "broken.json").write_text('{"runs": []}')
    with pytest.raises(UserError, match=r"broken\.json is no result of benchmarks\.time_to_auc: make it again"):
        records_page(tmp_path)


def test_a_run_is_that_of_fit_and_compiles_before_the_clock_starts(synthetic_shards, compiled, monkeypatch):
    dataset, devices = open_shards(synthetic_shards), Devices(1)
    train, validation = select(dataset, tuple(range(1, 9)), "training"), select(dataset, (9,), "validation")
    meta = describe("rajpurkar", dataset, dataset.task(), train, dataset.scaler, {}, CONFIG)
    recipe = make_recipe({"batchsize": 8, "steps_per_call": 3, "drop_last": False}, 2)
    assert len(train) % 8 and len(train) // 8 % 3  # the last calls of an epoch are smaller
    expected, before = [], []
    fit(meta, train, validation, recipe, devices, NOWHERE, expected.append)

    def epoch(*args, **kwargs):
        before.append(len(compiled))
        return plain(*args, **kwargs)

    plain = Trainer.epoch
    monkeypatch.setattr(Trainer, "epoch", epoch)
    found = train_one(meta, train, validation, recipe, devices)
    assert len(compiled) == before[-2] > before[0], f"compiled in a run: {compiled[before[-2] :]}"
    for name in (SCORE, "train_loss"):
        assert [row[name] for row in found["epochs"]] == [row[name] for row in expected]
    assert 0 < found["epochs"][0]["seconds"] < found["epochs"][1]["seconds"] and found["compile_s"] > 0


@pytest.fixture
def command(synthetic_shards, tmp_path, monkeypatch):
    """The exit status of the command with two tiny runs on one device, and some flags in place of others."""
    given = {"model": "rajpurkar", "target": 0.6, "epochs": 1, "runs": 2, "recipe": '{"batchsize": 8, "lr": 0.01}'}
    given |= {"data_dir": synthetic_shards, "config": json.dumps(CONFIG), "out": tmp_path / "out"}
    monkeypatch.setattr(benchmarks.time_to_auc, "Devices", lambda: Devices(1))

    def run(**changes):
        words = [word for name, value in (given | changes).items() for word in (f"--{name}", value)]
        return call(monkeypatch, benchmarks.time_to_auc, *words)

    return run


def test_the_command_keeps_every_log(command, synthetic_shards, tmp_path, capsys):
    assert command() == 0
    told = capsys.readouterr().out
    (path,) = (tmp_path / "out").iterdir()
    found = json.loads(path.read_text())
    assert [run["seed"] for run in found["runs"]] == [0, 1] and path.name.startswith("synthetic_0.6_rajpurkar_")
    assert found["recipe"]["lr"] == 0.01 and found["recipe"]["data_on_device"] is True
    assert found["data"]["fingerprint"] == open_shards(synthetic_shards).fingerprint
    assert found["claims"] == claims(found["runs"], 0.6) and found["why_no_record"][0] == "2 runs are fewer than 5"
    assert format_claims(found) in told and told.count("\nseed ") == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"runs": 1}, "--runs 1 has no interval: take two at least"),
        ({"target": 80}, "'80' is not a share from 0.5 to 0.999"),
        ({"recipe": '{"seed": 3}'}, "--recipe has no 'seed' to choose: take batchsize, lr, "),
        ({"recipe": '{"lr": "high"}'}, "--recipe 'lr' takes a value like 0.001, not \"high\""),
        ({"recipe": '{"lr": NaN}'}, "--recipe 'lr' takes a finite number from 0 on, not NaN"),
        ({"recipe": '{"batchsize": 0}'}, "--recipe 'batchsize' takes a finite number from 1 on, not 0"),
        ({"recipe": '{"dtype": "float16"}'}, "--recipe 'dtype' is one of float32, bfloat16, not float16"),
        ({"recipe": '{"batchsize": 4000}'}, "--batchsize 4000 is larger than the"),
        ({"data_dir": "nowhere"}, "--data_dir nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_sentence(command, changes, sentence, tmp_path, capsys):
    assert command(**changes) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            NotFinite("the loss became nan", 1, 2, None),
            2,
            "error: seed 0: the loss became nan in epoch 1, step 2: choose",
        ),
    ],
)
def test_a_run_that_does_not_end_leaves_nothing(command, error, status, said, tmp_path, monkeypatch, capsys):
    def stop(*args):
        raise error

    monkeypatch.setattr(benchmarks.time_to_auc, "compile_steps", stop)
    assert command() == status
    assert said in capsys.readouterr().err and not list((tmp_path / "out").iterdir())
