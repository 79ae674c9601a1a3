"""Which device, and in which number format, a model computes."""

import os
import platform

import torch

DTYPES = ('float32', 'bfloat16', 'float16')


def choose_device(device='auto', dtype='float32', trained_dtype=''):
    """
    Names of settings -> the device as a str and the torch dtype to compute in.

    device='auto' is the best there is. dtype='auto' is bfloat16 where the hardware multiplies it
    and float32 elsewhere, or where the model was trained in float32 (trained_dtype).
    ValueError if the device cannot be used here or the dtype is unknown.
    """
    if device == 'auto':
        device = best_device()
    if dtype == 'auto':
        use_bfloat16 = trained_dtype != 'float32' and multiplies_bfloat16(device)
        dtype = 'bfloat16' if use_bfloat16 else 'float32'
    if dtype not in DTYPES:
        raise ValueError(f'dtype={dtype} is unknown; choose one of auto, {", ".join(DTYPES)}')
    if device == 'cuda':
        # each process of torchrun has a GPU of its own
        device = f'cuda:{os.getenv("LOCAL_RANK", "0")}'
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'device={device} cannot be used here: {reason}; try --device=cpu'
        ) from None
    return device, getattr(torch, dtype)


def best_device():
    if torch.cuda.is_available():
        return 'cuda'
    if torch.backends.mps.is_available():
        return 'mps'
    return 'cpu'


def multiplies_bfloat16(device):
    """Are there instructions for it? Emulated, a bfloat16 product takes 190 times as long."""
    if device.startswith('cuda'):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == 'cpu':
        capabilities = torch.cpu.get_capabilities()
        has_avx512 = capabilities.get('avx512_bf16', False)
        has_amx = capabilities.get('amx_bf16', False)
        return bool(has_avx512 or has_amx)
    return False


def describe_machine(device, dtype):
    """What times and scores depend on, such as 'AMD EPYC, 2 threads, bfloat16, torch 2.13.0'."""
    if device.startswith('cuda'):
        processor = torch.cuda.get_device_name(device)
    else:
        name = torch.cpu.get_capabilities().get('cpu_name') or platform.machine()
        processor = f'{name}, {torch.get_num_threads()} threads'
    if device == 'mps':
        processor += ' and its GPU'
    number_format = str(dtype).removeprefix('torch.')
    return f'{processor}, {number_format}, torch {torch.__version__}'
