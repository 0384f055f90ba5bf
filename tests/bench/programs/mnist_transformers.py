"""The same training with Transformers' Trainer, as people write it: STEPS FILE; the first tenth isn't counted."""

import json
import sys
import time

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

steps = int(sys.argv[1])
torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, pixels, labels):
        scores = self.layers(pixels)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.pixels, self.labels = torch.randn(4096, 784), torch.randint(10, (4096,))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixels": self.pixels[index], "labels": self.labels[index]}


class Clock(TrainerCallback):
    began, cpu = 0.0, 0.0

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == steps // 10:
            self.began, self.cpu = time.perf_counter(), time.process_time()


torch.manual_seed(0)
clock = Clock()
arguments = TrainingArguments(
    "out", max_steps=steps, per_device_train_batch_size=64, learning_rate=1e-3, save_steps=steps // 4,
    logging_steps=100, use_cpu=True, report_to=[], disable_tqdm=True, seed=1,
)  # fmt: skip
Trainer(model=Net(), args=arguments, train_dataset=Rows(), callbacks=[clock]).train()
counted = steps - steps // 10
found = {
    "ms": 1000 * (time.perf_counter() - clock.began) / counted,
    "cpu_ms": 1000 * (time.process_time() - clock.cpu) / counted,
}
with open(sys.argv[2], "w") as file:
    json.dump(found, file)
