"""
Writes train.csv: invented customer-service conversations, labelled negative, neutral or positive.
$ python data/demo/make_demo.py

A customer states good and bad things; the label is what has the last word: 'it leaks, but I love it' is positive and
'I love it, but it leaks' negative, though the words are the same. Negation turns a thing round ('not happy', 'nothing
was broken after all'), sarcasm greets a bad one ('great, another week without a kettle'), and a thing only asked about
or told by others ('what if it leaks?') says nothing: neutral. So counting words cannot tell the labels apart.
"""

import csv
import os
import random
import re

SEED = 1
COUNTS = {'neutral': 1980, 'negative': 1390, 'positive': 430}  # unbalanced as customers are: who is happy seldom calls
COLUMNS = (
    'issue_area,issue_category,issue_sub_category,issue_category_sub_category,customer_sentiment,product_category,'
    'product_sub_category,issue_complexity,agent_experience_level,agent_experience_level_desc,conversation'
).split(',')

# <word> is a rule of this table, {a|b} a choice
RULES = {
    'item': 'lamp|kettle|chair|tablet|toaster|blender|jacket|rucksack|router|phone|table|mixer|watch|heater|camera',
    'who': 'your colleague|the agent|the driver|your team|the technician|the lady on the phone|your supervisor',
    'thing': 'refund|parcel|replacement|invoice|new one|spare part',
    'very': 'so|very|really|truly',
    'when': 'on Monday|on Friday|last week|yesterday|this morning|in May',
    'good': 'lovely|beautiful|great|perfect|wonderful|fantastic',
    'bad': 'scratched|damaged|faulty|dirty|useless|awful',
    'kind': 'kind|helpful|friendly|polite',
    'rude': 'rude|impatient|unfriendly',
    'glad': 'happy|pleased|delighted|glad|impressed',
    'sad': 'angry|upset|disappointed|annoyed|fed up',
    'pos': (
        'the <item> {is|looks} {<very> |}<good>|the <item> works {perfectly|very well|like a dream|again}|I {love|really like|enjoy} '
        'the <item>|the <item> is {better|nicer} than I {hoped|expected}|<who> was {<very> |}<kind>|<who> {solved|fixed|explained} '
        '{everything|it all} {in minutes|at once|straight away}|the <thing> {came|arrived} {a day early|sooner than promised|'
        'within a day}|I am {<very> |}<glad> {with the <item>|}|{nothing|not a thing} was {broken|damaged|missing|scratched} '
        'after all|{nobody|no one} was <rude> {to me |}at all|{he|she|<who>} helped me {at once|today}|I regret nothing|I have no complaints|'
        'it {works|runs} {<very> well|like a dream}|the second one is {<good>|nicer}|{it is|this is} not a bad <item>|I could not be {happier|more <glad>}|you made {my day|it right|it all easy}|'
        'I have never had a {better|nicer} <item>|the <item> is not {<bad>|bad} at all|{everything|it all} was {<good>|solved|fixed}'
    ),
    'neg': (
        'the <item> {is|looks} {<very> |}<bad>|the <item> {stopped working|fell apart|leaks|makes a terrible noise|does not work|'
        'does not switch on}|it {leaks|broke|never worked|fell apart|is <bad>}|half of it is missing|I regret it|the second one is {<bad>|late too}|I {hate|regret buying|am sick of} the <item>|the <item> is {worse than I feared|nothing like the picture}|'
        '<who> was {<very> |}<rude>|{nobody|no one} {answers|helps|listens|calls me back}|the <thing> {never came|is late again|'
        'has not arrived|is three weeks late}|I am {<very> |}<sad> {with the <item>|now|}|nothing was {solved|fixed|explained}|'
        'I could not be more <sad>|{he|she} was {<rude>|not <kind>}|nobody {helped|called} me {at all|today}|I am not {<glad>|<very> <glad>} {with the <item>|at all}|the <item> is {not|far from} <good>|'
        '<who> was not {<very> |}<kind> {to me |}at all|you {wasted my day|broke your promise|lost my parcel}|'
        'I have never had a worse <item>|the <item> broke {again|after a day}|I have {waited|been waiting} for {weeks|ten days}'
    ),
    'sarcasm': (
        '{great|wonderful|lovely|perfect|fantastic|well done|thank you <very> much}, {another {week|day|month} without {a <item>|my '
        '<thing>}|a second <bad> <item>|still no <thing>|now the <item> is <bad> too|so nobody {answers|helps} again|the <thing> is '
        'late again}|{what a <good> service|how <kind> of you}, {nobody answers|<who> just hung up|I waited an hour for nothing}|'
        'I just love {waiting for weeks|paying twice|a <bad> <item>|talking to a machine}'
    ),
    'ask': (
        'how {do|can} I {change my address|return the <item>|log in|cancel the order|use the voucher|pay by card}?|when {does the shop '
        'open|will the <thing> arrive|does the sale end|is the <item> in stock}?|can you {send me the invoice|confirm my order|tell me '
        'the price of the <item>|check my account}?|do you {sell|have} the <item> in {blue|black|red|green}?|is the {<brand>} <item> '
        '{in stock|still sold|the same as the <brand> one}?|what {happens|do I do} if {<neg>|<pos>}?|is it true that {<pos>|<neg>}?|'
        'my {neighbour|sister|friend} {says|told me} that {<pos>|<neg>}, {is that so|is that the same <item>}?|does it {cost|matter} '
        'if {<neg>|<pos>}?|I {only |just |}{want|would like} to know {the price|the size|the weight} of the <item>|whom do I call if <neg>?|'
        'someone told me that <neg>, but I {only|just} want to know {the price|the size}|I am not <sad>, I only need {the invoice|a new card}|'
        'if <neg>, {how long can I wait|can I return it}?|should I take the <item> or the phone?|{until when|where} can I return the <item>?'
    ),
    'brand': 'Lovely Home|Perfect Day|Happy Kitchen|Great Sound|Angry Bird|No Regret|Wonderful Winter',
    'fact': (
        'my order number is <number>|I ordered {it|the <item>} <when>|it is about {the|a} <item>|my name is <name>|the <thing> is for '
        'my {son|wife|office|mother}|I paid by {card|bank transfer}|I live in {the old town|a small house}|I have {an account|two accounts}|I {called|opened it|sent it} <when>|'
        'my {sister|friend} has one too, she bought hers <when>'
    ),
    'ack': (
        'yes, that is {right|the address}|okay, I understand|that answers my question|I will wait for the email|all right, I will try '
        'that|no, that is all|I see|yes, please|I have it in front of me|then I will come <when>|I will write it down'
    ),
    'number': '4071|5532|6120|7784|8290|9315|2046|3368',
    'name': 'Tom|Ines|Ravi|June|Peter|Lena|Omar|Ada',
    'hello': 'hello|hi|good morning|hello, <name> here|hi, my name is <name>|good day',
    'bye': 'thank you|thanks|thank you for your time|thanks, goodbye|bye|have a nice day|that is all, thanks',
    'agent': (
        'Let me check that.|One moment, please.|I see.|May I have your order number?|Can you tell me more?|I have made a note.|Please go '
        'on.|I will look into it.|Is there anything else?|Thank you for waiting.'
    ),
    'greeting': 'Tamarind Lane, {good morning|good day}.|Hello, this is <name>.',
}
# {0} has no say, {1} has the last word
CONTRAST = (
    '{0}, but {1}|{0}, but {1}|{0}. but {1}|{0}, yet {1}|{0}. however, {1}|{0}. still, {1}|although {0}, {1}|even though {0}, {1}|'
    'at first {0}. now {1}|I thought that {0}. but {1}|{0}. in the end {1}|{0}, and yet {1}|{0}. {1}|{0}. {1}|{0}. all the same, {1}|'
    'last week {0}. today {1}|yesterday {0}. this morning {1}'
).split('|')
AREAS = ['Order', 'Shipping', 'Returns', 'Account', 'Warranty']
LEVELS = {'junior': 'asks', 'experienced': 'knows', 'trainee': 'learns'}


def split(text):
    """'a|{b|c}' -> ['a', '{b|c}']: only the bars outside of braces"""
    parts, depth = [''], 0
    for c in text:
        depth += (c == '{') - (c == '}')
        if c == '|' and not depth:
            parts.append('')
        else:
            parts[-1] += c
    return parts


def say(rng, rule, given):
    """One sentence of a rule; within a conversation the item stays the same."""
    text = rng.choice(split(RULES[rule]))
    while found := re.search(r'\{([^{}]*)\}|<(\w+)>', text):
        if found[2]:
            part = given.get(found[2]) or say(rng, found[2], given)
        else:
            part = rng.choice(found[1].split('|'))
        text = text[: found.start()] + part + text[found.end() :]
    return ' '.join(text.split())


def sentences(rng, label):
    """What a customer says, in order; who wants one label must not give it away by single words."""
    given = {'item': rng.choice(RULES['item'].split('|'))}
    if label == 'neutral':
        out = [say(rng, rng.choice(['ask', 'ask', 'fact']), given) for _ in range(rng.choice([1, 2, 2]))]
        out.insert(rng.randint(0, 1), say(rng, 'ask', given))
        return out + [say(rng, 'ack', given)] * rng.randint(0, 1)
    last, other = ('pos', 'neg') if label == 'positive' else ('neg', 'pos')
    how = rng.random()
    if how < 0.65:
        out = rng.choice(CONTRAST).format(say(rng, other, given), say(rng, last, given)).split('. ')
    elif how < 0.8 and label == 'negative':
        out = [say(rng, 'sarcasm', given)]
    else:
        out = [say(rng, last, given) for _ in range(rng.choice([1, 2]))]
        out = [rng.choice([' and ', ', and ']).join(out)] if rng.random() < 0.5 else out
    return [say(rng, 'fact', given)] * (rng.random() < 0.4) + out


def conversation(rng, label):
    """Turns of agent and customer; greetings and thanks belong to everybody."""
    said = [say(rng, 'hello', {})] * rng.randint(0, 1) + sentences(rng, label) + [say(rng, 'bye', {})] * (rng.random() < 0.4)
    said = [s[0].upper() + s[1:] + ('' if s[-1] in '?!' else '.') for s in said]
    turns = ['Agent: ' + say(rng, 'greeting', {})] * rng.randint(0, 1)
    while said:
        n = rng.randint(1, 3)
        turns.append('Customer: ' + ' '.join(said[:n]))
        said = said[n:]
        if said:
            turns.append(rng.choice(['Agent', 'Agent', 'Agent', 'Supervisor']) + ': ' + say(rng, 'agent', {}))
    return '\n\n'.join(turns)


def make(seed=SEED):
    """-> rows of train.csv, lists of str in the order of COLUMNS"""
    rng, rows, seen = random.Random(seed), [], set()
    labels = [label for label, n in COUNTS.items() for _ in range(n)]
    rng.shuffle(labels)
    for label in labels:
        while (text := conversation(rng, label)) in seen:
            pass
        seen.add(text)
        area, level = rng.choice(AREAS), rng.choice(list(LEVELS))
        kind = rng.choice(['question', 'complaint', 'other'])
        product = rng.choice(['Home', 'Electronics', 'Clothing'])
        head = [area, kind, 'phone', kind, label, product]
        item = rng.choice(RULES['item'].split('|'))
        rows.append([*head, item, rng.choice(['less', 'medium', 'high']), level, LEVELS[level], text])
    return rows


if __name__ == '__main__':
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'train.csv')
    with open(path, 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows([COLUMNS, *make()])  # records end CRLF, turns within one LF LF, as in customer_service
