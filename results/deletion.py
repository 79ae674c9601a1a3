"""
Which words of a text carry its label? A test of two answers to that, by deletion.

The three words that an answer calls the weightiest are left out of each text: the further the
probability of the label falls, the better. Three random words are the comparison. The answers are

    leaving out    each word in turn, as nanosentiment/explain.py does it
    gradient       of the label's log-odds by the embedding of each token, times that embedding,
                   summed over the tokens of a word (one forward and backward pass for each text)

$ python -m results.deletion out/minilm_sst2/seed-1 data/sst2/dev.tsv sentence
prints one line of JSON. The last argument is the column of the texts.
"""

import json
import random
import sys

import numpy as np
import torch

from nanosentiment import Classifier
from nanosentiment.explain import explain
from nanosentiment.memmaps import pad_rows
from nanosentiment.tables import Table

N_WORDS = 3
FEWEST_WORDS = 2 * N_WORDS  # of a text, so that half of it is left


def gradient_weights(classifier, explanation):
    """Gradient times input of each piece of an explained text."""
    pieces = explanation['pieces']
    model = classifier.model
    # the tokens of the text up to the end of each piece tell which tokens the piece has
    ends = []
    prefix = ''
    n_suffix = classifier.tokenizer.n_suffix
    for piece in pieces:
        prefix += piece
        ends.append(len(classifier.encode([prefix])[0]) - n_suffix)
    ids = np.array(classifier.encode([prefix])[0])

    embeddings = []

    def keep_output(module, inputs, output):
        embeddings.append(output)

    hook = model.wte.register_forward_hook(keep_output)
    idx, lengths = pad_rows([ids])
    logits, _ = model(torch.as_tensor(idx), torch.as_tensor(lengths))
    hook.remove()
    [embedding] = embeddings  # (1, T, C)
    label = classifier.labels.index(explanation['label'])
    others = [i for i in range(len(classifier.labels)) if i != label]
    log_odds = logits[0, label] - logits[0, others].logsumexp(dim=0)
    [gradient] = torch.autograd.grad(log_odds, embedding)
    weight_of_token = (gradient * embedding).sum(dim=-1)[0].tolist()  # T numbers

    weights = []
    begin = classifier.tokenizer.n_prefix
    for end in ends:
        weights.append(sum(weight_of_token[begin:end]))
        begin = max(begin, end)
    return weights


def top(weights):
    """The numbers of the N_WORDS largest weights."""
    return sorted(range(len(weights)), key=lambda i: -weights[i])[:N_WORDS]


def leave_out(pieces, numbers):
    return ''.join(piece for i, piece in enumerate(pieces) if i not in numbers)


def main():
    run, path, column = sys.argv[1:]
    classifier = Classifier(run, device='cpu', dtype='float32')
    texts = [row[column] for _, row, _ in Table(path)]
    explanations = []
    for explanation in explain(classifier, texts):
        if explanation['kind'] == 'words' and len(explanation['pieces']) >= FEWEST_WORDS:
            explanations.append(explanation)

    draw = random.Random(0)
    shortened = {'whole': [], 'leaving out': [], 'gradient': [], 'random': []}
    for explanation in explanations:
        pieces = explanation['pieces']
        by_gradient = gradient_weights(classifier, explanation)
        shortened['whole'].append(''.join(pieces))
        shortened['leaving out'].append(leave_out(pieces, top(explanation['weights'])))
        shortened['gradient'].append(leave_out(pieces, top(by_gradient)))
        at_random = draw.sample(range(len(pieces)), N_WORDS)
        shortened['random'].append(leave_out(pieces, at_random))

    labels = np.array([classifier.labels.index(e['label']) for e in explanations])
    probability = {}  # of the label of the whole text
    is_other = {}  # has the label changed?
    for name, texts_of_name in shortened.items():
        probabilities = classifier.probabilities(classifier.logits(texts_of_name))
        probability[name] = probabilities[np.arange(len(labels)), labels]
        is_other[name] = probabilities.argmax(axis=1) != labels
    result = {'run': run, 'texts': len(labels), 'words': N_WORDS}
    result['probability of the whole text'] = round(float(probability['whole'].mean()), 4)
    for name in ('leaving out', 'gradient', 'random'):
        falls = probability['whole'] - probability[name]
        result[name] = {
            'mean fall': round(float(falls.mean()), 4),
            'standard error': round(float(falls.std(ddof=1) / np.sqrt(len(falls))), 4),
            'share with another label': round(float(is_other[name].mean()), 4),
        }
    print(json.dumps(result))


if __name__ == '__main__':
    main()
