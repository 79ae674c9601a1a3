# The first of two stages from scratch: a small language model of texts without labels, which learns
# to predict the next token. A classifier then begins with its weights and its tokens:
# $ python train.py config/pretrain_lm.py --dataset=texts.txt
# $ python train.py --init_from=out/lm --out_dir=out/mine \
#     --dataset=mine.csv --text_column=body --label_column=mood
# About 15 minutes on one CPU core for SST-2's training text, which is short. Expect a validation
# perplexity of 305 there, after three epochs.

out_dir = 'out/lm'
dataset = 'sst2'  # a .txt with a text on each line, or a table: then name its --text_column
labelled = False
tokenizer = 'bpe8192-prefix'
val_fraction = 0.05
block_size = 128

n_layer = 4
n_head = 4
n_embd = 128
causal = True  # a token that saw the next one would have nothing to predict
dropout = 0.2

batch_size = 16
learning_rate = 1e-3
warmup_iters = 100
weight_decay = 0.1
max_epochs = 10
patience = 3  # few texts are learned by heart, which validation shows
log_interval = 100
