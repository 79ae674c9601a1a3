# a small transformer without any pre-training on SST-2: 67,349 phrases of film reviews, negative or positive
# $ python train.py config/train_sst2_scratch.py
# expected: 80 % on dev; minutes

out_dir = 'out/sst2_scratch'
dataset = 'sst2'
tokenizer = 'bpe8192'
val_fraction = 0.05

n_layer = 2
n_head = 4
n_embd = 256
causal = False
pool = 'mean'
block_size = 128
dropout = 0.3
head_dropout = 0.3

batch_size = 32
learning_rate = 5e-4
warmup_iters = 200
weight_decay = 0.1
max_epochs = 3
metric = 'val_macro_f1'
log_interval = 100
