# RoBERTa-base (125 million parameters) on SST-2: 67,349 phrases of film reviews, negative or
# positive.
# $ pip install tokenizers
# $ python train.py config/finetune_roberta_sst2.py
# Not yet measured here, because its weights (0.5 GB) come from a hub. Expect 94 % on dev, as
# others report with these rates. Estimated: an hour an epoch on two CPU cores with bfloat16.

out_dir = 'out/roberta_sst2'
dataset = 'sst2'
strip_brackets = True  # as in all our figures on SST-2; 1 in 60 texts has a bracket
init_from = 'roberta-base'
val_fraction = 0.05
block_size = 128  # nothing is cut: the longest has 66 tokens

dropout = 0.1
head_dropout = 0.1
batch_size = 32
learning_rate = 2e-5
decay_lr = 'linear'
warmup_iters = 400
weight_decay = 0.1
beta2 = 0.98
max_epochs = 4
patience = 2
metric = 'val_macro_f1'
