"""An ordinary program with Transformers' Trainer, with a step of five milliseconds."""

import time

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.tokens = torch.randint(5, 60, (4000, 12), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        time.sleep(0.005 / 8)
        return {"input_ids": self.tokens[index], "labels": int(self.tokens[index].float().mean() > 32)}


torch.manual_seed(0)
config = BertConfig(
    vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
)
arguments = TrainingArguments("out", num_train_epochs=500, use_cpu=True, report_to=[], disable_tqdm=True, seed=1)
Trainer(model=BertForSequenceClassification(config), args=arguments, train_dataset=Rows()).train()
