"""Loggers, each read back by its own package."""

import json
import struct

import mlflow
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainers import Recording
from trainers import called_back as trainer
from wandb.proto import wandb_internal_pb2

import jaxtrader as jt
from jaxtrader.training.loggers import figures


def scalars(folder, name):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def journal(data, header=7, block=32_768):
    """The messages of a file in LevelDB's log format: each part has a checksum, its length and its place."""
    at, message = header, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # the rest of a block is empty
            at += block - at % block
            continue
        length, place = struct.unpack("<HB", data[at + 4 : at + 7])
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if place in (1, 4):  # whole, or the last part
            yield message
            message = b""


def test_figures_are_the_finite_numbers_of_a_record():
    record = {"steps": 10, "loss": 1.5, "episode_return": float("nan"), "seed": 2, "note": "text", "none": None}
    assert figures(record) == {"loss": 1.5, "seed": 2.0}


def test_log_gives_figures_and_steps_to_any_object_with_log(tmp_path):
    class Target:
        def __init__(self):
            self.lines = []

        def log(self, data, step):
            self.lines.append((step, data["updates"]))

    target = Target()
    trainer(tmp_path / "run", jt.loggers.Log(target), total_steps=160).train()
    assert target.lines == [(80, 2), (160, 4)]
    with pytest.raises(ValueError, match="no method log"):
        jt.loggers.Log(object())


def test_a_logger_that_fails_does_not_end_the_training(tmp_path):
    class Failing:
        def log(self, data, step):
            raise ConnectionError("no network")

    recording = Recording()
    with pytest.warns(UserWarning, match="no network"):
        assert trainer(tmp_path / "run", jt.loggers.Log(Failing()), recording).train().updates == 10
    assert recording.told[-1] == ("end", 10)


def test_tensorboard_reads_the_scalars_also_of_a_resumed_run(tmp_path):
    folder = tmp_path / "run"
    trainer(folder, jt.loggers.TensorBoard(), Recording(stop_at=2)).train()
    result = trainer(folder, jt.loggers.TensorBoard()).train(resume=True)
    expected = [(record["steps"], record["episode_return"]) for record in result.history]
    assert scalars(folder / "tensorboard", "episode_return") == expected
    trainer(tmp_path / "other", jt.loggers.TensorBoard(tmp_path / "all"), total_steps=80).train()
    assert scalars(tmp_path / "all" / "other", "updates") == [(80, 2.0)]


def test_mlflow_reads_settings_and_metrics_also_of_a_resumed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which needs no database
    uri = (tmp_path / "mlruns").as_uri()
    logger = jt.loggers.MLflow("mine", tracking_uri=uri)
    trainer(tmp_path / "run", logger, Recording(stop_at=2)).train()
    trainer(tmp_path / "run", logger).train(resume=True)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.data.params["training.num_envs"] == "4"
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "updates")
    assert [(metric.step, metric.value) for metric in history] == [(80 * i, 2.0 * i) for i in range(1, 6)]


def test_wandb_keeps_the_run_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    trainer(tmp_path / "run", jt.loggers.WandB(mode="offline", project="mine"), total_steps=160).train()
    wandb.teardown()  # its own process writes the file
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert (tmp_path / "run" / "wandb.txt").read_text().strip() in path.name
    lines = []
    for data in journal(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.history.item:
            lines.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
    assert [(line["_step"], line["updates"]) for line in lines] == [(80, 2.0), (160, 4.0)]


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"jaxtrader\[tensorboard\]"):
        jt.loggers.TensorBoard()
