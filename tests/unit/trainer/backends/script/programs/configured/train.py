"""Configuration as with hydra: groups of YAML files, `model=deep optimizer.args.lr=0.02`, and an output folder."""

import sys
from pathlib import Path

import torch
import yaml

CONF = Path(__file__).parent / "conf"


def configured(overrides):
    """Return the configuration: the defaults, other files for groups, then single values."""
    config = yaml.safe_load((CONF / "config.yaml").read_text())
    groups = {group: name for each in config.pop("defaults") for group, name in each.items()}
    given = [each.split("=", 1) for each in overrides]
    groups |= {key: value for key, value in given if key in groups}
    for group, name in groups.items():
        config[group] = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    for key, value in given:
        if key in groups:
            continue
        *path, last = key.split(".")
        place = config
        for part in path:
            place = place[part]
        if last not in place:
            raise SystemExit(f"{key}: there is no such key; there are {', '.join(place)}")
        place[last] = yaml.safe_load(value)
    return config


def main():
    config = configured(sys.argv[1:])
    torch.manual_seed(config["seed"])
    width = config["model"]["width"]
    hidden = [part for _ in range(config["model"]["layers"]) for part in (torch.nn.LazyLinear(width), torch.nn.ReLU())]
    model = torch.nn.Sequential(*hidden, torch.nn.LazyLinear(1))
    model(torch.zeros(1, 4))
    optimizer = getattr(torch.optim, config["optimizer"]["class"])(model.parameters(), **config["optimizer"]["args"])
    folder = Path("outputs") / config["name"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    file, step = folder / "last.ckpt", 0
    if file.exists():
        state = torch.load(file)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while step < config["steps"]:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        ((model(x) - x.amax(1, keepdim=True)) ** 2).mean().backward()
        optimizer.step()
        step += 1
        if step % 10 == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, file)


if __name__ == "__main__":
    main()
