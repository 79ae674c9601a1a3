# A small transformer from scratch on a table of your own: 500 to 100,000 texts, 2 to 150 labels.
# $ python train.py config/train_own_scratch.py --dataset=mine.csv \
#     --text_column=body --label_column=mood
# A minute or two on two CPU cores for some thousand sentences. Below 10,000 texts expect about what
# a bag of words has; the last lines say if that is better. Then try config/finetune_own.py.

out_dir = 'out/own_scratch'
dataset = 'demo'
tokenizer = 'bpe8192-prefix'  # the first word of a text is the same token as inside it
lowercase = True  # so that a few thousand texts need not learn each word twice
block_size = 256
keep = 'first'

n_layer = 2
n_head = 4
n_embd = 128
causal = False
pool = 'mean'
dropout = 0.3
head_dropout = 0.3
token_dropout = 0.3

# Few texts are read up to 50 times, and many at least twice.
max_epochs = 50
max_iters = 4000
min_epochs = 2
patience = 10
metric = 'val_macro_f1'

class_weight = 'sqrt'
batch_size = 32
learning_rate = 1e-3
warmup_iters = 50
weight_decay = 0.1
