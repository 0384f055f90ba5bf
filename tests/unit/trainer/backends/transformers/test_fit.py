"""`training.transformers`: a text classifier from a config or a folder, trained, killed, tested, kept."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainmaster_api.messages import Resume
from trainmaster_api.spec.data import Data as DataSpec
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.own import TransformersModel
from trainmaster_trainer.backends.transformers import model as models
from trainmaster_trainer.backends.transformers import texts
from trainmaster_trainer.backends.transformers.arguments import arguments_of
from trainmaster_trainer.backends.transformers.fit import loss_of
from trainmaster_trainer.data import load_data
from trainmaster_trainer.errors import ConfigurationError
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, TrainingArguments

from tests.factories import REMOVE, change, make_job
from tests.unit.trainer.backends.script.launching import Run
from tests.unit.trainer.backends.transformers.conftest import WARM

WORDS = {"good": ["great", "lovely", "nice"], "bad": ["awful", "poor", "dull"]}
CONFIG: dict[str, Any] = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 32, "max_position_embeddings": 40}  # fmt: skip


def write_reviews(folder: Path) -> None:
    """Write 120 reviews whose one telling word says the class."""
    draws = random.Random(3)
    folder.mkdir(parents=True)
    with (folder / "reviews.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "verdict"])
        for index in range(120):
            verdict = ("good", "bad")[index % 2]
            filler = " ".join(draws.choices(["it", "was", "a", "film"], k=draws.randrange(1, 4)))
            rows.writerow([f"{filler} {draws.choice(WORDS[verdict])} {index}", verdict])


def run_of(folder: Path, world: int, model: dict[str, Any], **arguments: Any) -> Run:
    write_reviews(folder / "code")
    run = Run(folder, world, folder / "code", path="unused.py")
    run.warm = WARM
    file = folder / "job.json"
    changes = {
        "spec.training.script": REMOVE,
        "spec.training.task": {"name": "classification"},
        "spec.training.data": {
            "source": "reviews.csv", "target": "verdict", "columns": {"text": {"role": "text"}}, "batchSize": 8,
            "text": {"maxLength": 32},
        },
        "spec.training.transformers": {"model": model, "arguments": {"learning_rate": "5e-3", **arguments}},
        "spec.checkpoint.every": "5step",
    }  # fmt: skip
    file.write_text(json.dumps(change(json.loads(file.read_text()), changes)))
    return run


def test_fit_trains_resumes_and_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    calm, run = (
        run_of(tmp_path / name, 1, {"config": CONFIG}, num_train_epochs=6, logging_steps=4)
        for name in ("calm", "stopped")
    )
    calm.start()
    calm.finish()
    (run.root / "stop").touch()
    run.start()
    run.until(lambda: bool(run.results or run.failures))
    assert not run.failures, (run.failures, run.log())
    assert run.results[0]["outcome"] == "Stopped"
    assert run.results[0]["step"] < 72
    run.kill()
    (run.root / "stop").unlink()
    run.start(new_disks=True)
    run.finish()
    assert run.model()["transformers-model/model.safetensors"] == calm.model()["transformers-model/model.safetensors"]
    assert [each["resume"] for each in run.reports if each["resume"]][-1] == Resume.EXACT
    assert run.results[0]["step"] == run.results[0]["totalSteps"] == 6 * 96 // 8
    assert run.results[0]["testMetrics"]["test/accuracy"] == 1.0, "one word says the class"
    assert {"val/loss", "val/accuracy", "val/f1", "train/loss", "train/lr"} <= set(run.reports[-1]["metrics"])
    config = json.loads((run.disk(0) / "transformers-model" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert (run.disk(0) / "transformers-model" / "tokenizer.json").exists()


def test_fit_two_ranks_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ranks, twice, at steps that are drawn, and on other disks: dropout draws on each of them."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dice = random.Random(12)
    calm, run = (run_of(tmp_path / name, 2, {"config": CONFIG}, num_train_epochs=2) for name in ("calm", "killed"))
    calm.start()
    calm.finish()
    monkeypatch.setenv("PACE", "0.0")
    saved = 0
    for _ in range(2):
        moment = dice.randrange(6, 11)  # at least one save later than the last, of 24 steps
        monkeypatch.setenv("HOLD", str(moment))
        run.start(new_disks=True)
        saved = (saved + moment - 1) // 5 * 5  # what was due before the step that it is killed in
        mark = f"node-0/trainmaster-transformers/train-1/checkpoint-{saved}/complete.json"
        run.until(lambda: len(run.held) == 2 or bool(run.failures))
        run.until(lambda mark=mark: bool(run.failures) or mark in kept(run))  # type: ignore[misc]
        assert not run.failures, (run.failures, run.log())
        run.kill()
    monkeypatch.delenv("HOLD")
    run.start(new_disks=True)
    run.finish()
    weights = "node-0/transformers-model/model.safetensors"
    assert run.model()[weights] == calm.model()[weights]
    assert run.results[0]["testMetrics"] == calm.results[0]["testMetrics"]
    resumed = {each["step"] for each in run.reports if each["kind"] == "Resumed"}
    assert {0, saved} <= resumed
    assert [each["resume"] for each in run.reports if each["resume"]][-1] == Resume.EXACT
    assert run.results[0]["step"] == run.results[0]["totalSteps"] == 2 * 96 // 8


def kept(run: Run) -> set[str]:
    """Return the files of the newest set."""
    return {each.path for each in run.sets._newest.files} if run.sets._newest is not None else set()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_mean_of_the_whole_batch(smoothing: float) -> None:
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 2, 1, 0])
    whole = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, labels)
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    shares = [loss_of(smoothing, {"logits": logits[part]}, labels[part], torch.tensor(6)) for part in parts]
    assert torch.allclose(sum(shares), whole)  # type: ignore[arg-type]
    assert torch.allclose(loss_of(smoothing, {"logits": logits}, labels), whole)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learning_rat": 1}, "transformers.arguments.learning_rat: TrainingArguments has no such field"),
        ({"output_dir": "x"}, "transformers.arguments.output_dir: checkpoints are kept in the job's storage; remove"),
        ({"push_to_hub": True}, "transformers.arguments.push_to_hub: the model is kept in the job's storage; remove"),
        ({"use_cpu": True}, "transformers.arguments.use_cpu: devices and processes follow the pods; remove it"),
        ({"gradient_accumulation_steps": 3}, "data.batchSize 8 isn't a multiple of 6, workers x gradient_accumulation"),
        ({"learning_rate": "fast"}, "transformers.arguments: could not convert string to float: 'fast'"),
        ({"eval_strategy": "sometimes"}, "transformers.arguments: sometimes is not a valid IntervalStrategy"),
    ],
)
def test_arguments_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        arguments_of(TrainingArguments, given, 8, 2)
    assert str(caught.value).startswith(words)


def test_arguments_follow_the_job() -> None:
    args = arguments_of(TrainingArguments, {"learning_rate": "5e-5", "gradient_accumulation_steps": 2}, 8, 2)
    assert (args.learning_rate, args.per_device_train_batch_size) == (5e-5, 2)
    assert (args.eval_strategy, args.save_strategy, args.report_to) == ("epoch", "no", [])
    assert arguments_of(TrainingArguments, {"eval_strategy": "no"}, 8, 1).eval_strategy == "no"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"config": {"model_type": "bret"}}, "transformers.model.config.model_type: Transformers has no model 'bret'"),
        (
            {"config": {"model_type": "bert", "hiden_size": 8}},
            "transformers.model.config.hiden_size: the config of",
        ),
        (
            {"config": {"model_type": "bert", "vocab_size": 8}},
            "transformers.model.config.vocab_size: data.text says",
        ),
        ({"config": {"model_type": "bert", "hidden_size": 9}}, "transformers.model.config: The hidden size (9)"),
        ({"config": CONFIG, "class": "BertForSequence"}, "transformers.model.class: Transformers has no class BertFor"),
    ],
)
def test_model_refused(model: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        models.drawn(TransformersModel.model_validate(model), ["bad", "good"], 64, 0)
    assert str(caught.value).startswith(words)


def test_model_of_a_folder(tmp_path: Path) -> None:
    spec = TransformersModel.model_validate({"path": "weights"})
    with pytest.raises(ConfigurationError, match=r"there is no config\.json"):
        models.read(spec, tmp_path, ["bad", "good"])
    saved = BertForSequenceClassification(BertConfig(**{**CONFIG, "vocab_size": 32, "num_labels": 3}))
    saved.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "great", "awful"]))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    model, tokenizer = models.read(spec, tmp_path, ["bad", "good"])
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.classifier.out_features == 2, "a head for other classes is drawn"
    for name, value in saved.bert.state_dict().items():
        assert torch.equal(value, model.bert.state_dict()[name]), name
    assert tokenizer("great awful")["input_ids"] == [2, 5, 6, 3]
    models.require_room(model, 40)
    with pytest.raises(ConfigurationError, match="maxLength 41 is more than the 40 positions"):
        models.require_room(model, 41)


def test_texts_by_the_models_own_tokenizer(tmp_path: Path) -> None:
    write_reviews(tmp_path / "code")
    data = DataSpec.model_validate(
        {"source": "reviews.csv", "target": "verdict", "columns": {"text": {"role": "text"}}, "text": {"maxLength": 5}}
    )
    training = {"task": {"name": "classification"}, "data": data.wire(), "model": {"name": "transformer"}}
    job = make_job({"spec.training": training})
    rows = texts.rows_of(load_data(TrainingJob.model_validate(job), tmp_path / "code", {}))

    def tokenizer(some: list[str], *, truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()][:max_length] for text in some]}

    tokens = texts.encoded(rows, tokenizer)
    with (tmp_path / "code" / "reviews.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    split = texts.Texts(tokens, rows.y, np.arange(120)[::-1])
    for index in (0, 7, 119):
        line = lines[119 - index]
        assert split[index]["input_ids"].tolist() == [len(word) for word in line["text"].split()][:5]
        assert rows.labels[int(split[index]["labels"])] == line["verdict"]
    batch = texts.collator(9)([split[0], split[1]])
    widths = [len(split[index]["input_ids"]) for index in (0, 1)]
    assert batch["attention_mask"].sum(1).tolist() == widths
    assert (batch["input_ids"] == 9).sum().item() == 2 * max(widths) - sum(widths)
