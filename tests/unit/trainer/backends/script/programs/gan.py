"""Two models, two optimizers, a fixed number of steps of each."""

import os

import torch

torch.manual_seed(1)
maker, judge = torch.nn.Linear(4, 2), torch.nn.Linear(2, 1)
makes, judges = torch.optim.Adam(maker.parameters(), 0.01), torch.optim.Adam(judge.parameters(), 0.01)
parts = {"maker": maker, "judge": judge, "makes": makes, "judges": judges}
step = 0
if os.path.exists("gan.ckpt"):
    state = torch.load("gan.ckpt")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    step = state["step"]
score = torch.nn.functional.binary_cross_entropy_with_logits
while step < 60:
    draws = torch.Generator().manual_seed(step)
    real, noise = torch.randn(16, 2, generator=draws) + 3, torch.randn(16, 4, generator=draws)
    for _ in range(2):  # the judge twice as often
        judges.zero_grad()
        loss = score(judge(real), torch.ones(16, 1)) + score(judge(maker(noise).detach()), torch.zeros(16, 1))
        loss.backward()
        judges.step()
    makes.zero_grad()
    score(judge(maker(noise)), torch.ones(16, 1)).backward()
    makes.step()
    step += 1
    if step % 10 == 0:
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, "gan.ckpt")
