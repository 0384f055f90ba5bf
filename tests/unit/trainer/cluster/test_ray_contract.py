"""Everything of Ray's that we use exists, and nothing else is used: an upgrade of Ray is read off this file."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.cluster.commands import head_command, worker_command

ROOT = Path(__file__).parents[4]
# module -> names that `cluster/` may take from it
USED = {
    "ray": {"init", "nodes", "util", "get_runtime_context", "PlacementGroupID", "tune", "remote", "kill"},
    "ray.exceptions": {"RayActorError"},
    "ray.util": {"get_node_ip_address", "placement_group_table"},
    "ray.util.placement_group": {"PlacementGroup", "remove_placement_group", "get_current_placement_group"},
    "ray.util.scheduling_strategies": {"PlacementGroupSchedulingStrategy"},
    "ray.tune": {
        "FailureConfig", "PlacementGroupFactory", "RunConfig", "Trainable", "TuneConfig", "Tuner", "with_parameters",
        "with_resources",
    },
    "ray.tune.schedulers": {"FIFOScheduler"},
    "ray.tune.search": {"Searcher"},
    "ray.train": {"FailureConfig", "RunConfig", "ScalingConfig", "get_context"},
    "ray.train.v2.api.data_parallel_trainer": {"DataParallelTrainer"},
}  # fmt: skip
METHODS = {
    "get_runtime_context()": {"gcs_address", "get_node_id", "get_placement_group_id"},
    "get_context()": {
        "get_world_rank", "get_world_size", "get_local_rank", "get_local_world_size", "get_node_rank",
    },
    "PlacementGroupID": {"from_hex"},
}  # fmt: skip
PARAMETERS = {
    "ray.init": {
        "address", "num_cpus", "num_gpus", "object_store_memory", "include_dashboard", "logging_level", "log_to_driver",
        "runtime_env",
    },
    "ray.train.ScalingConfig": {"num_workers", "resources_per_worker"},
    "ray.train.RunConfig": {"name", "storage_path", "failure_config", "worker_runtime_env"},
    "ray.train.FailureConfig": {"max_failures"},
    "ray.tune.RunConfig": {"name", "storage_path", "storage_filesystem", "failure_config", "verbose"},
    "ray.tune.FailureConfig": {"max_failures"},
    "ray.tune.TuneConfig": {"num_samples", "max_concurrent_trials", "reuse_actors", "search_alg", "scheduler"},
    "ray.tune.Tuner": {"trainable", "tune_config", "run_config"},
    "ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy": {
        "placement_group", "placement_group_bundle_index",
    },
    "ray.train.v2.api.data_parallel_trainer.DataParallelTrainer": {
        "train_loop_per_worker", "train_loop_config", "scaling_config", "run_config",
    },
}  # fmt: skip


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in USED.items() for n in sorted(names)])
def test_ray_name_exists(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_ray_methods_exist() -> None:
    from ray.runtime_context import RuntimeContext
    from ray.train import TrainContext

    for name in METHODS["get_runtime_context()"]:
        assert hasattr(RuntimeContext, name)
    for name in METHODS["get_context()"]:
        assert hasattr(TrainContext, name)
    for name in METHODS["PlacementGroupID"]:
        assert hasattr(ray.PlacementGroupID, name)


@pytest.mark.parametrize("function", PARAMETERS)
def test_ray_parameters_exist(function: str) -> None:
    assert PARAMETERS[function] <= set(inspect.signature(resolve(function)).parameters)  # type: ignore[arg-type]


def test_ray_is_used_as_this_file_says() -> None:
    """By reading the code: imports, and attributes of what was imported."""
    found: set[str] = set()
    for path in sorted((ROOT / "trainer/trainmaster_trainer").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
                assert "cluster" in path.parts, path
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                mine = [alias.name for alias in node.names if alias.name.split(".")[0] == "ray"]
                assert not mine or "cluster" in path.parts, path
            elif isinstance(node, ast.Attribute) and "cluster" in path.parts:
                text = ast.unparse(node)
                if text.startswith(("ray.", "train.", "tune.")) and "(" not in text:
                    found.add(text if text.startswith("ray.") else f"ray.{text}")
    known = {"ray.train"} | {f"{module}.{name}" for module, names in USED.items() for name in names}
    known |= {f"ray.PlacementGroupID.{name}" for name in METHODS["PlacementGroupID"]}
    assert found == known


def test_nothing_private_is_used() -> None:
    """In no file of the product, and not as text either."""
    words = ["ray" + "._private", "._inter" + "nal"]
    for folder in ("crds", "operator", "trainer", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert not [word for word in words if word in text], path


def test_the_command_line_knows_every_option(job: TrainingJob, tmp_path: Path) -> None:
    """`ray start --help` leaves some out; what it doesn't know ends it with status 2 before it starts anything."""
    both = {"--address"}  # which is added when the head is there
    for command in (head_command("10.0.0.1", tmp_path, job), worker_command("10.0.0.1", tmp_path, job, "10.0.0.2")):
        both |= {word.partition("=")[0] for word in command[command.index("start") + 1 :]}
    code = (
        "import sys\nfrom ray.scripts.scripts import start\n"
        "print(*[option for parameter in start.params for option in parameter.opts])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert both <= set(out.stdout.split())


def test_ray_s_version_is_the_one_that_this_was_written_for() -> None:
    assert ray.__version__ == "2.60.0"
