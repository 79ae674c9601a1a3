# GPT-2 (124 million parameters) on SST-2: 67,349 phrases of film reviews, negative or positive.
# $ python train.py config/finetune_gpt2_sst2.py
# Not yet measured here, because its weights (0.5 GB) come from a hub. Expect 92.5 % on dev, as
# others report with these rates (91.2 % with 5e-5). Estimated: an hour an epoch on two CPU cores
# with bfloat16.

out_dir = 'out/gpt2_sst2'
dataset = 'sst2'
strip_brackets = True  # as in all our figures on SST-2; 1 in 60 texts has a bracket
init_from = 'gpt2'
tokenizer = 'gpt2'  # through tiktoken, the same ids as the checkpoint's tokenizer.json
val_fraction = 0.05
block_size = 128  # nothing is cut: the longest has 65 tokens

dropout = 0.1  # as in its pre-training
head_dropout = 0.1
batch_size = 32
learning_rate = 2e-5
decay_lr = 'linear'
warmup_iters = 400
weight_decay = 0.01
beta2 = 0.999
max_epochs = 4
patience = 2
metric = 'val_macro_f1'
