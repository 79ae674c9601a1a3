"""
Writes train.csv: invented customer-service conversations, labelled negative, neutral or positive.

    python data/demo/make_demo.py

A sentence is made in three steps. A claim is good or bad ('it works', 'it leaks'); a denial turns it round ('it does
not leak'); a frame says what it is worth: stated, only asked ('what if it leaks?'), or outweighed by another ('it
leaks, but ...'). The label is what the customer states and nothing outweighs.
Most rows are twins: nearly the same words, another label, because the order, the denial or the asking differs.
Counting words can not tell twins apart; reading can.
"""

import csv
import os
import random
import re

seed = 20
columns = [
    'issue_area',
    'issue_category',
    'issue_sub_category',
    'issue_category_sub_category',
    'customer_sentiment',
    'product_category',
    'product_sub_category',
    'issue_complexity',
    'agent_experience_level',
    'agent_experience_level_desc',
    'conversation',
]

# how twins differ, the good claim, the label of each twin, how many. positive is rare, as in real conversations
PLAN = [
    ('order', 'fine', ['neutral', 'negative'], 410),
    ('order', 'praise', ['positive', 'negative'], 46),
    ('denial', 'fine', ['neutral', 'negative'], 147),
    ('denial', 'praise', ['positive', 'negative'], 20),
    ('asked', 'fine', ['neutral', 'negative'], 108),
    ('asked', 'praise', ['neutral', 'positive'], 10),
    ('none', 'fine', ['neutral'], 320),
]

PRODUCTS = {
    'Kitchen': ['kettle', 'toaster', 'blender'],
    'Electronics': ['phone', 'tablet', 'camera', 'radio', 'watch'],
    'Clothing': ['coat', 'jacket', 'rucksack'],
    'Home': ['lamp', 'chair', 'desk', 'heater'],
}
TOPICS = {
    'Delivery': ['Parcel on its way', 'Address and date', 'Packaging'],
    'Returns': ['Exchange', 'Refund after return', 'Return form'],
    'Account': ['Login code', 'Password', 'Personal data'],
    'Repair': ['Guarantee', 'Spare part', 'Engineer visit'],
    'Payment': ['Invoice', 'Fee', 'Voucher'],
    'Products': ['Advice', 'Stock', 'Review'],
}
LEVELS = {
    'inexperienced': 'in the first weeks, asks a colleague when in doubt',
    'junior': 'answers most questions alone, hands the rest on',
    'experienced': 'knows every product and every form',
}

# in all lines below '{a|b}' picks one and '<name>' picks from here; <item> is the product, <n> a number
WORDS = {
    'it': ['it', 'it', 'the <item>', 'the <item>', 'my <item>', 'the new {one|<item>}', 'the {parcel|replacement}'],
    'you': ['you', 'you', 'your {colleague|driver}', 'the lady on the phone'],
    'service': ['the {service|repair|exchange|delivery|answer}', 'your {service|help}', 'everything'],
    'great': ['great', 'excellent', 'wonderful', 'perfect', 'lovely', 'brilliant', 'good', 'beautiful', 'nice', 'fast'],
    'foul': ['terrible', 'awful', 'bad', 'poor', 'useless', 'slow'],
    'glad': ['happy', 'pleased', 'glad', 'satisfied', 'delighted', 'grateful', 'relieved'],
    'sore': ['upset', 'angry', 'disappointed', 'annoyed', 'unhappy', 'cross'],
    'kind': ['kind', 'polite', 'friendly', 'patient', 'helpful'],
    'rude': ['rude', 'unkind', 'careless', 'impatient'],
    'hurt': ['broken', 'damaged', 'scratched', 'torn'],
    'flaw': ['scratch', 'fault', 'mistake', 'problem', 'fee'],
    'very': ['very', 'really', 'truly', '', ''],
    'when': ['today', 'yesterday', 'on {Monday|Friday|Sunday}', 'this morning', 'last week'],
    'soon': ['today', 'tomorrow', 'Monday', 'Friday', 'June'],
    'who': ['a friend', 'my {sister|brother|neighbour|wife|son}', 'a review'],
    'brand': ['Happy Day', 'Angry Bird', 'Kind Giant', 'Bad Weather', 'Good Night', 'Sad Clown', 'Best Friend'],
}

# how it is said | how it is denied. facts first: things go as they should, which is no more than neutral, or go wrong
FINE = [
    "<it> works {|again|now} | <it> {does not|doesn't} work",
    "<it> fits {|now|me} | <it> {does not|doesn't} fit",
    '<it> {came|arrived} {|<when>|on time} | <it> {never came|never arrived|has not arrived|did not come}',
    '<it> is here {|now|at last} | <it> is {not|still not} here',
    "<it> {switches on|runs} {|again|now} | <it> {does not|doesn't} {switch on|run}",
    '<you> {helped me|called me back} {|<when>} | {nobody {helped me|called}|<you> did not {help me|call me back}}',
    '<you> {found it|fixed it|replied} {|<when>} | {nobody {found it|fixed it|replied}|<you> never replied}',
    'the {money|refund} {is here|came} {|now} | {there is no refund|the {money|refund} {never came|is not here}}',
    "I can log in {|again|now} | I {can not|can't|still can't} log in",
    "the code {works|came} {|now} | the code {does not work|doesn't work|never came}",
    '{everything|it} is {solved|settled} {|now} | {nothing is|it is not|it is still not} {solved|settled}',
]
WRONG = [
    '<it> {is|was} <hurt> | <it> {is|was} {not|not even} <hurt>',
    '{everything|half of it} was <hurt> | nothing was <hurt>{| after all}',
    "<it> {leaks|smells|hums} | <it> {does not|doesn't} {leak|smell|hum}",
    '<it> {stopped|broke|fell apart} {|twice} | <it> {never {stopped|broke}|has never {stopped|broken}}',
    '<it> {is|was} the wrong {colour|size|one} | <it> {is|was} not the wrong {colour|size|one}',
    '<it> is too {small|loud|heavy} | <it> is not too {small|loud|heavy}',
    '<it> {was|came} late {|again} | <it> was not late{| after all}',
    'there {is|was} a <flaw> | there {is|was} no <flaw>{| after all}',
    'I was charged twice | I was not charged twice',
    'I had to {wait|call|argue} {|again} | I {did not have|never had} to {wait|call|argue}',
    '<you> {lost|forgot} my {parcel|order} {|again} | nobody {lost|forgot} my {parcel|order}',
    'something {was|is} {missing|wrong} | nothing {was|is} {missing|wrong}{| after all}',
]
# then feelings and verdicts: positive or negative
PRAISE = [
    'I am <very> <glad> | I am {not|not|not really|anything but} <glad>',
    'I am <very> <glad> | I would not say that I am <glad>',
    '<it> is a {joy|pleasure} | <it> is {no|anything but a} {joy|pleasure}',
    '<it> is worth {the money|every penny} | <it> is not worth {the money|a penny}',
    '<it> is <very> <great> | <it> is {not|anything but} <great>',
    '<service> {is|was} <very> <great> | <service> {is not|was not|was anything but} <great>',
    '<it> is {better|nicer} than {I hoped|the old one} | <it> is {no|not} {better|nicer} than the old one',
    '<you> were <very> <kind> | <you> were {not|never} <kind>',
    'I will {gladly|surely} {buy|order} here again | I will {never|not} {buy|order} here again',
    "I {love|like} {it|the <item>} | I {do not|don't} {love|like} {it|the <item>}",
    "I can {recommend|praise} {it|your shop} | I {can't|can not} {recommend|praise} {it|your shop}",
    'I could not be happier | I could not be less happy',
    'nobody was ever so good to me | nobody was ever so bad to me',
    'you {made|saved} my day | you ruined my day',
]
BLAME = [
    'I am <very> <sore> | I {was never|have never been} <sore>',
    '{it|you|your shop} {let me down|disappointed me} | {it|you|your shop} never {let me down|disappointed me}',
    '<service> {is|was} <very> <foul> | <service> was {anything but|never} <foul>',
    '<you> were <very> <rude> | <you> were never <rude>',
    "I {have a complaint|must complain} | I {have no complaints|can't complain|never had to complain}",
    '{it|this} is a {nightmare|mess|joke} | {it|this} is {no|anything but a} {nightmare|mess|joke}',
    "I can't accept it | I can't fault it",
    'it could not be worse | it could not be better',
]
CLAIMS = {'fine': FINE, 'wrong': WRONG, 'praise': PRAISE, 'blame': BLAME}
OPPOSITE = {'fine': 'wrong', 'wrong': 'fine', 'praise': 'blame', 'blame': 'praise'}

# '@' is outweighed by '#'; '/' parts sentences. mostly the last word counts
FRAMES = [
    *['@, but #'] * 5, '@, yet #', '@ / but #', '@ / still, #', '@ / however, #', 'although @, #', 'even though @, #',
    'at first @, but now #', 'I thought that @, but #', 'I was told that @ / but #', 'I hoped that @ / now #',
    '#, although @',
]  # fmt: skip
# praise that comes before a bad claim is sarcasm, before a good one it is meant
CHEER = [
    'great', 'wonderful', 'lovely', 'brilliant', 'well done', 'congratulations', 'thank you so much', 'perfect',
    'how nice',
]  # fmt: skip
ASKED = [
    'what {if|happens if} #?', 'can I {send it back|return it|get a refund} if #?',
    'in case #, {who do I call|where do I write}?', 'is it true that #?', '<who> {says|told me} that #, is that so?',
    'do people say that #?', 'does the guarantee help if #?', 'could it be that #?', 'what do customers do if #?',
    'I read that #, is that the old model?',
]  # fmt: skip
# asks and tells without taking sides, though the words of feeling are in it
PLAIN = [
    'I {would like|only want|just want} to know {the price|the day|the opening hours}', 'which colours do you have?',
    'how long does the guarantee last?', 'is there a form for {praise|complaints}?',
    'is the <brand> <item> {in stock|as heavy as the <brand> one}?', 'I need the invoice once more',
    'how do I {change my address|write a review|use a voucher}?', 'when do you open <when>?',
    'can my neighbour take the parcel?',
    'I would like to {change the address|move the delivery to <soon>|order the <brand> one}',
    'do you sell the <item> in {red|green|black}?',
    'this is {no complaint|no praise and no complaint}, I only have a question',
    'I am not {<sore>|<glad>}, I only have a question',
    'there is no <flaw>, I only want to know the {price|day|size}', 'I can not judge it yet',
    'what do you do with a {<hurt>|late|lost} {parcel|<item>}?', 'is a {<hurt> <item>|<flaw>} part of the guarantee?',
    'I would be <glad> to hear {the price|the day|your opening hours}', 'is it too {small|loud|heavy} for a child?',
    'where do I send a <hurt> <item>?', 'which <item> do customers {love|like|complain about} most?',
    'which colour makes a {child|sister} <glad>?',
    '<who> was <sore> with the old <item>, is the new one another model?',
    'people write <great> and <foul> things about it, how heavy is it?', 'I am {afraid|sorry}, I lost the number',
    'what does {the repair|the delivery} cost?', 'I look for a <great> present for my {son|wife}',
]  # fmt: skip
# says that the matter is over and leaves it at that
SETTLED = [
    'then I will {wait until <soon>|think about it|take two|tell my sister}', 'I have {it on paper|noted it}',
    'that answers my question', 'I took {the blue one|another password}', 'the page is open', 'I sent it back <when>',
    'I have the address now', 'I have no more questions',
]  # fmt: skip
INFO = [
    'my order number is <n>', 'I ordered it <when>', 'it is about the <brand> <item>',
    'my name is {Mary|Susan|Peter|Omar} {Hall|Brook|Stone}', 'I called <when>',
    'it is for {my son|my wife|the kitchen}', 'I have the <item> in {blue|green|black}',
]  # fmt: skip
HELLO = ['hello', 'hi', 'good {morning|evening}', 'hello, {Mary|Peter} here', 'sorry to bother you']
BYE = [
    'thank you', 'bye then', 'that would be all', 'thanks and bye', 'nothing else, thank you',
    'have a {nice|good} day',
]  # fmt: skip
OPENING = ['Hello, how can I help?', 'Tamarind Lane, good {morning|day}.', 'Hello, this is {Tom|Ines|Ravi|June}.']
REPLY = [
    'May I have {your name|the order number|the address}?', 'I will look into it.', 'One moment, please.', 'I see.',
    'Let me check.', 'Which {product|colour|day} is it about?', 'Please go on.',
    'I have looked at your {order|account}.', 'And {today|now}?', 'Can you tell me more?',
    'I sent you {a message|a link}.', 'I have made a note.', 'Is there anything else?',
]  # fmt: skip


class Dice:
    # random() is the method of random.Random whose values are promised to stay the same over the versions
    def __init__(self, seed):
        self.random = random.Random(seed).random

    def chance(self, p):
        return self.random() < p

    def choice(self, seq):
        return seq[int(self.random() * len(seq))]

    def shuffled(self, seq):
        return [x for _, _, x in sorted((self.random(), i, x) for i, x in enumerate(seq))]

    def say(self, line, item):
        # fills the innermost braces and names until none is left
        def fill(m):
            if m.group(2) is None:
                return self.choice(m.group(1).split('|'))
            if m.group(2) == 'n':
                return str(1000 + int(self.random() * 9000))
            return item if m.group(2) == 'item' else self.choice(WORDS[m.group(2)])

        while re.search('[{<]', line):
            line = re.sub(r'\{([^{}<>]*)\}|<(\w+)>', fill, line)
        line = re.sub(r'\ba (?=[aeio])', 'an ', ' '.join(line.split()))
        return re.sub(r'(?<!you) were\b', ' was', line)


def both_ways(dice, good, item):
    # one line of the tables as a good and as a bad claim; more often said outright than by denying its opposite
    denies = dice.chance(0.4)
    said, denied = dice.choice(CLAIMS[OPPOSITE[good] if denies else good]).split(' | ')
    said, denied = dice.say(said, item), dice.say(denied, item)
    return (denied, said) if denies else (said, denied)


def asked(dice, claim, item):
    return dice.say(dice.choice(ASKED), item).replace('#', claim)


def question(dice, item):
    if dice.chance(0.5):
        return dice.say(dice.choice(PLAIN), item)
    return asked(dice, dice.choice(both_ways(dice, dice.choice(['fine', 'fine', 'praise']), item)), item)


def twins(dice, how, good, item, depth=0):
    # what two customers say: the first has it good (or leaves it at neutral), the second has it bad
    fine = both_ways(dice, good, item)[0]
    bad = both_ways(dice, dice.choice(['fine', 'fine', 'praise']), item)[1]
    if good == 'fine' and dice.chance(0.2):
        fine = dice.say(dice.choice(SETTLED), item)
    cheer = dice.choice(CHEER) + ', ' if dice.chance(0.15) else ''
    if how == 'order':
        frame = dice.choice(FRAMES)
        one = frame.replace('@', bad).replace('#', cheer + fine)
        two = frame.replace('@', fine).replace('#', cheer + bad)
    elif how == 'denial':
        one, two = (cheer + claim for claim in both_ways(dice, good, item))
    elif how == 'asked':
        claim = bad if good == 'fine' else fine
        one, two = asked(dice, claim, item), cheer + claim
    else:
        one = two = question(dice, item)
    one, two = one.split(' / '), two.split(' / ')
    if how in ('order', 'denial') and depth < 3 and dice.chance(0.6):
        # people say it more than once, which also makes it easier to learn
        more, less = twins(dice, how, good, item, depth + 1)
        one, two = one + more, two + less
    return one, two


def sentence(text):
    text = text[0].upper() + text[1:]
    return text if text[-1] in '.?!' else text + '.'


def conversation(dice, said, item):
    if dice.chance(0.35):
        said = [question(dice, item) if dice.chance(0.6) else dice.say(dice.choice(INFO), item)] + said
    if dice.chance(0.3):
        said = [dice.say(dice.choice(HELLO), item)] + said
    if dice.chance(0.15):
        said = said + [dice.say(dice.choice(BYE), item)]
    said = [sentence(x) for x in said]
    turns = ['Agent: ' + dice.say(dice.choice(OPENING), item)] if dice.chance(0.4) else []
    while said:
        n = 1 + int(dice.random() * 3)
        turns.append('Customer: ' + ' '.join(said[:n]))
        said = said[n:]
        if said or dice.chance(0.3):
            turns.append(('Supervisor: ' if dice.chance(0.04) else 'Agent: ') + dice.say(dice.choice(REPLY), item))
    return '\n\n'.join(turns)


def make(seed=seed):
    # all rows, in an order that says nothing about the label
    dice = Dice(seed)
    rows = []
    for how, good, labels, n in PLAN:
        for _ in range(n):
            category = dice.choice(list(PRODUCTS))
            item = dice.choice(PRODUCTS[category])
            for label, said in zip(labels, twins(dice, how, good, item), strict=False):  # 'none' is one row
                area = dice.choice(list(TOPICS))
                topic, detail = dice.shuffled(TOPICS[area])[:2]
                level = dice.choice(list(LEVELS))
                complexity = dice.choice(['less', 'less', 'medium', 'medium', 'high'])
                row = [area, topic, detail, f'{topic} -> {detail}', label, category, item.capitalize(), complexity]
                rows.append(row + [level, LEVELS[level], conversation(dice, said, item)])
    return dice.shuffled(rows)


if __name__ == '__main__':
    rows = make()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'train.csv')
    with open(path, 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows([columns] + rows)
