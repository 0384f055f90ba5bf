"""Text: columns with the role `text` become token numbers, with a tokenizer that the train split fits."""
