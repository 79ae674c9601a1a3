"""
Writes train.csv: invented customer-service conversations, labelled negative, neutral or positive.

    python data/demo/make_demo.py

A sentence is made in three steps. A claim is good or bad ('it works', 'it leaks'); negation turns it round
('it does not leak'); a frame says what it is worth: stated, only asked ('what if it leaks?'), or outweighed by what
comes after ('it leaks, but ...'). The label is what the customer states and nothing outweighs. Every label draws
from the same claims, so that counting words does not give it away: order and composition do.
"""

import csv
import os
import re

seed = 20
# twins: rows of nearly the same words whose labels differ by order, by negation, or by asking instead of stating
# how, the better claim, label of each twin, how many. positive is as rare as in real conversations
PLAN = [
    ('order', 'fine', ['neutral', 'negative'], 660),
    ('order', 'praise', ['positive', 'negative'], 80),
    ('negation', 'fine', ['neutral', 'negative'], 230),
    ('negation', 'praise', ['positive', 'negative'], 28),
    ('asked', 'fine', ['neutral', 'negative'], 130),
    ('asked', 'praise', ['neutral', 'positive'], 16),
    ('none', 'fine', ['neutral'], 460),
]
BAD_SIDE = {'fine': ['wrong', 'wrong', 'blame'], 'praise': ['wrong', 'blame']}
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

# ---- words. '{a|b}' picks one, '<name>' picks from WORDS, '<it>' is a thing and '<item>' its noun

PRODUCTS = {
    'Kitchen': ['kettle', 'toaster', 'blender', 'mixer'],
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
WORDS = {
    'it': ['{the|my|the new|your} <item>', 'the <item>', 'it', 'it', 'the {new|second|other} one', 'the replacement', 'the one {you sent|I bought}'],
    'you': ['you', 'you', 'your {colleague|driver}', 'the {lady|man} on the phone', 'the driver'],
    'many': ['{three|four|five} people', 'two colleagues', 'everyone', 'your people'],
    'great': ['excellent', 'brilliant', 'wonderful', 'perfect', 'great', 'lovely', 'good', 'nice', 'beautiful', 'fast'],
    'foul': ['terrible', 'awful', 'bad', 'poor', 'useless', 'slow', 'a {nightmare|mess|joke}'],
    'glad': ['happy', 'pleased', 'glad', 'satisfied', 'delighted', 'grateful', 'relieved', 'impressed'],
    'sore': ['upset', 'angry', 'disappointed', 'annoyed', 'unhappy', 'cross', 'fed up'],
    'service': ['the {service|repair|exchange|delivery|answer}', 'your {service|shop}'],
    'soon': ['today', 'tomorrow', '{Monday|Tuesday|Friday|Sunday}', 'next week', 'May', 'June'],
    'kind': ['kind', 'polite', 'friendly', 'patient', 'helpful'],
    'rude': ['rude', 'unkind', 'careless', 'impatient'],
    'time': ['{two|three|four|ten} {days|weeks|months}', 'a {day|week|month}', 'an hour', 'six years', 'half a year'],
    'when': ['today', 'yesterday', 'on {Monday|Tuesday|Friday|Sunday}', 'this morning', 'last week', 'in {May|June}'],
    'very': ['very', 'really', 'so', 'rather', ''],
    'loss': ['lost', 'forgot', 'broke', 'ignored'],
    'mine': ['my {parcel|order|letter|return|refund|exchange|complaint|birthday present}', 'the {box|invoice|forms}'],
    'help': ['helped me', 'called me back', 'answered me', 'found my order', 'solved it', 'replied', 'fixed it', 'exchanged it'],
    'helped': ['help me', 'call me back', 'answer me', 'find my order', 'solve it', 'reply', 'fix it', 'exchange it'],
    'hurt': ['broken', 'damaged', 'scratched', 'torn', 'empty'],
    'flaw': ['scratch', 'fault', 'mistake', 'problem', 'fee'],
    'brand': ['Happy Day', 'Angry Bird', 'Perfect Morning', 'Great Joy', 'Bad Weather', 'Good Night', 'Lazy Sunday',
              'Sorry Sheep', 'Terrible Twins', 'Lucky Star', 'Best Friend', 'Sad Clown'],
    'some': ['a friend', 'my {sister|brother|neighbour|wife|husband|mother|son}', 'a review', 'somebody', 'a customer'],
}  # fmt: skip

# each line: how it is said | how its denial is said. FINE and PRAISE are good as they stand, WRONG and BLAME bad.
# facts first: things go as they should, which is no more than neutral, or they do not, which is negative
FINE = [
    "<it> works {|again|now} | <it> {does not|doesn't|still doesn't} work{| again}",
    "<it> fits {|now|me} | <it> {does not|doesn't|still doesn't} fit{| me}",
    "<it> {came|arrived} {|<when>|on time|at last} | <it> {never came|did not come|has not come|never arrived|has not arrived|did not arrive}",
    "<it> is here {|now|at last} | <it> is {not|still not} here",
    "<it> {switches on|runs|opens} {|again|now} | <it> {does not|doesn't|still doesn't} {switch on|run|open}",
    "{somebody|<you>} <help> {|<when>} | {nobody|no one} <help>",
    "<you> <help> {|<when>} | <you> {did not|didn't|never} <helped>",
    "the {money|refund} {is on my account|came|is here} {|now} | {there is {no|still no} {money|refund}{| on my account}|the {money|refund} {never came|did not come|is not here}}",
    "I can log in {|again|now} | I {can not|can't|still can't} log in",
    "the {code|link} {works|arrived|came} {|now} | the {code|link} {does not work|doesn't work|never arrived|did not come|never came}",
    "{everything|it} is {solved|settled|in the box} {|now} | {nothing is|it is not|it is still not} {solved|settled|in the box}",
]  # fmt: skip
WRONG = [
    "<it> {is|was} <hurt> | <it> {is|was} {not|not even} <hurt>",
    "{everything|half of it|the box} was <hurt> | nothing was <hurt>{| after all}",
    "<it> {leaks|smells|hums} | <it> {does not|doesn't|no longer} {leak|leaks|smell|hum}",
    "<it> {stopped|broke|fell apart} {|twice|on the second day} | <it> {never|has never} {stopped|broken}",
    "<it> {is|was} the wrong {colour|size|one} | <it> {is|was} not the wrong {colour|size|one}",
    "<it> is too {small|loud|heavy} | <it> is not too {small|loud|heavy}{| after all}",
    "<it> {was|came} late{| again} | <it> was not late{| after all}",
    "there {is|was} a <flaw> | there {is|was} no <flaw>{| after all}",
    "I was charged {twice|a fee} | I was not charged {twice|a fee}",
    "I had to {wait|call|argue} {|again|for <time>} | I {did not|didn't} have to {wait|call|argue}{| again}",
    "{<you>|somebody} <loss> my {parcel|order|letter} {|again|twice} | nobody <loss> my {parcel|order|letter}",
    "something {was|is} {missing|wrong} | nothing {was|is} {missing|wrong}{| after all}",
]  # fmt: skip
# then feelings and verdicts: positive or negative
PRAISE = [
    "I am <very> <glad> | I am {not|not|not really|anything but|far from} <glad>",
    "I am <very> <glad> | I {can't say that I am|am not even a little} <glad>",
    "<it> is a {joy|pleasure} | <it> is {no|not a|anything but a} {joy|pleasure}",
    "<it> is worth {the money|every penny|the wait} | <it> is not worth {the money|a penny|the wait}",
    "<it> is <very> <great> | <it> is {not|anything but|far from} <great>",
    "<service> {is|was} <very> <great> | <service> {is not|was not|was anything but|is far from} <great>",
    "<it> is {better|nicer} than {I hoped|the old one} | <it> is {no|not} {better|nicer} than the old one",
    "<you> was <very> <kind> | <you> was {not|never|anything but} <kind>",
    "I will {gladly|surely} {buy|order} here again | I will {never|not} {buy|order} here again",
    "I {love|like} {it|the <item>|your shop} | I {do not|don't|can't} {love|like} {it|the <item>|your shop}",
    "I {can|must} {recommend|praise} {it|you|your shop} | I {can't|can not} {recommend|praise} {it|you|your shop}",
]  # fmt: skip
BLAME = [
    "I am <very> <sore> | I {was never|am anything but|have never been} <sore>",
    "{<it>|you|your shop} {let me down|disappointed me} | {<it>|you|your shop} never {let me down|disappointed me}",
    "<service> {is|was} <very> <foul> | <service> was {not at all|anything but|far from|never} <foul>",
    "<you> was <very> <rude> | <you> was never <rude>",
    "I {have a complaint|must complain} | I {have no complaints|can't complain|never had to complain}",
    "{it|this} is a {nightmare|mess|joke} | {it|this} is {no|not a|anything but a} {nightmare|mess|joke}",
]  # fmt: skip
# set phrases that have no single word to lean on
PRAISE_ALONE = [
    "I could not be {happier|more pleased}", "it could not be better", "I can't fault {it|you}", "you made my day", "what a relief",
    "that is more than I hoped for", "I have nothing but praise", "nobody ever helped me so well", "this is the best <item> I ever had",
    "thank you for that with all my heart", "you kept your word", "you saved my day",
]  # fmt: skip
BLAME_ALONE = [
    "I could not be {less happy|more upset}", "it could not be worse", "I can't accept {it|that}", "you ruined my day", "another week without a <item>",
    "that is less than I hoped for", "I have nothing but trouble", "nobody ever helped me so little", "this is the worst <item> I ever had",
    "I want my money back", "I expected better", "I have had enough", "I will buy elsewhere",
]  # fmt: skip
CLAIMS = {'fine': FINE, 'wrong': WRONG, 'praise': PRAISE, 'blame': BLAME}
OPPOSITE = {'fine': 'wrong', 'wrong': 'fine', 'praise': 'blame', 'blame': 'praise'}
ALONE = {'praise': PRAISE_ALONE, 'blame': BLAME_ALONE}
CHEER = ['great', 'wonderful', 'lovely', 'brilliant', 'well done', 'congratulations', 'thank you so much', 'how nice',
         'perfect', 'what a joy', 'good job', 'thanks a lot', 'fantastic', 'oh good', 'excellent']  # fmt: skip
GASP = ['oh', 'honestly', 'unbelievable', 'what bad luck, I thought', 'I can hardly believe it', 'my goodness', 'well']

ASKED = [
    'what {if|happens if} #?', 'can I {send it back|return it|get a refund|exchange it|write to you} if #?',
    'in case #, {who do I call|what do I do|where do I write|whom do I tell}?', 'is it true that #?', 'suppose that #, what then?',
    '<some> {says|told me|said} that #, is that so?', '<some> {says|told me} that #, does that mean the {old|new|red} model?',
    'I read that #, is that the old model?', 'do people say that #?', 'how often {do you hear|does it happen} that #?',
    'does the guarantee help {when|if} #?', 'what do customers do {when|if} #?', 'if #, is there a {form|fee|number to call}?',
    'could it be that #?', 'must I call you {if|when} #?',
]  # fmt: skip
# asks and tells without taking sides; the second list has the words of feeling in it
PLAIN = [
    'I {would like|only want|just want|need} to know {the price|the day|the opening hours|the weight|the size of the box}',
    'which colours {are there|do you have}?', 'how long does the guarantee last?', 'is the <brand> <item> {in stock|the same as the <brand> one}?',
    'I {would love|would like|want} to {order|reserve} {two|another one|the <brand> <item>|a blue one}',
    'I need a copy of the {invoice|receipt|form}', 'how do I {change my address|close the form|write a review|use a voucher}?',
    'I would like to {change the address|move the delivery to <soon>|add a second <item>}', 'when do you {open|close} {today|on Sunday}?',
    'can my neighbour take the parcel?', 'I {wonder|would be glad to hear} how much {power|water|room} it needs', 'do you sell the <item> in {red|green|black}?',
    'is the {small|large} one {lighter|wider|the same}?', 'until when can I {return|exchange|collect} it?',
    'where do I {write a complaint|leave praise|send a review}?', 'I {am calling|write} about the {invoice|deposit|delivery day|guarantee}',
    'I don\'t want to {complain|praise or complain}, I only have a question {about the bill|}', 'I am in no hurry', 'I have not opened it yet',
    'I am neither happy nor unhappy, I only have a question', 'does it need a {large|small} bulb?',
    'I have {no opinion|not tried it} yet', 'it is {for my sister|for a school project|a present|for the kitchen}', 'does it go in the dishwasher?',
    'I forgot my password', 'what does {a new screen|the delivery|the deposit} cost?', 'is there a discount for {students|two}?',
    'I am afraid I do not have the {number|receipt} at hand', 'please keep one for me', 'I may order the shoes or the boots',
]  # fmt: skip
CUED = [
    'what do you do with a {<hurt>|late|wrong|lost} {parcel|<item>|order}?', 'where do I send a {<hurt>|<hurt>|wrong} <item>?',
    'is there a {<great>|<foul>} difference between the two?', 'I would be <glad> to hear {the price|the day|your opening hours}',
    'do you {pay for|repair|take back} a {<hurt>|wrong|late} <item>?', 'is the <brand> <item> as <great> as the <brand> one?',
    'which <item> do customers {love|like|hate|complain about} {most|least}?', 'how do I {write a complaint|thank your team|praise somebody}?',
    'does the guarantee cover a {<hurt>} <item> or only a <flaw>?', 'my {wife|son|mother} {would be|was not|might be} <glad> {with|about} the {red|old|other} one, which do you have?',
    '<some> was <sore> with the old <item>, is the new one another model?', 'I have read both <great> and <foul> things about it, what does it weigh?',
    'what would it cost if I {broke|lost|scratched} it?', 'is {a|any} <flaw> {common|covered|possible}?', 'I am not {<sore>|<glad>|<sore>}, I only have a question',
    'there is no <flaw>, I only {want to ask|would like to know} the {price|day|size}', 'can a {late|<hurt>} parcel go to my neighbour?',
    'is it {<great>|<foul>|too loud|too small} for a {child|small room|garden}?', 'I look for a <great> present for a <sore> {friend|boss|uncle}',
    'would a {<kind>|<rude>} driver carry it upstairs?', 'I am {afraid|sorry|glad to say} {I do not have the receipt|I need a second copy|I only have the number}',
]  # fmt: skip
# says that the matter is over and leaves it at that
SETTLED = [
    '{that|this|it} is {done|settled|dealt with} now', 'the new code is accepted and I am logged in', 'the form is sent',
    'I have chosen {a new one|another password|the blue one}', 'I have sent it back and wait for the {money|letter}',
    'I have written {that|it} down', 'I have noted the {day|number|steps}', 'then I will {look it up|wait until <soon>|take two|think about it|tell my sister}',
    'the evening is possible', 'I see, {both are the same|at noon then|so it is larger}', 'that {is clear|answers it|was the question}',
    'the {address|name|date} is the right one now', 'I have it on paper', 'okay, so the {deposit|fee} comes later',
    'so I take the {small|blue|old} one', 'I have no more questions', 'I only call to {confirm the day|give you the number}',
]  # fmt: skip
INFO = [
    'my order number is <n>', 'the number is <n>', 'it is order <n>', 'I ordered it <when>', 'it is about {the|a} <brand> <item>',
    'my name is {Mary|Susan|Peter|Omar|Lena|Victor} {Hall|Brook|Stone|Lind}', 'I live at number {two|twelve|twenty}', 'I bought it <when>',
    'I have the <item> in {blue|green|black}', 'I called <when>', 'it was for {my son|my wife|the kitchen}', 'the email is from <soon>',
    'I am at home {today|tomorrow|on Friday}', 'the card is mine',
]  # fmt: skip
HELLO = ['hello', 'hi', 'good {morning|evening|day}', 'hello, {Mary|Peter|Lena} here', 'sorry to bother you', 'excuse me']
BYE = ['thank you', 'bye then', 'goodbye now', 'that would be all', 'thanks and bye', 'that was all, thank you', 'nothing else, thanks',
       'have a {nice|good} day', 'okay, thank you', 'please pass it on', 'all right, goodbye now', 'yes, please', 'no, thank you']  # fmt: skip
OPENING = ['Hello, {how can I help|what can I do for you|you have reached {Tamarind Lane|the shop|the desk}}{| today}?',
           'Tamarind Lane, good {morning|day}.', 'Hello, this is {Tom|Ines|Ravi|June}.']  # fmt: skip
REPLY = ['May I have {your name|the order number|the address}?', 'I will look into it.', 'One moment, please.', 'I see.', 'Let me check.',
         'Which {product|colour|day} is it about?', 'Please go on.', 'I have looked at {it|your order|your account}.', 'What is the state now?',
         'And {today|now}?', 'Can you tell me more?', 'I sent you {a message|a link}.', 'Did you get {my message|the link}?',
         'The {warehouse|workshop} has answered.', 'I have made a note.', 'Is there anything else?']  # fmt: skip


class Dice:
    # random() is the one method of random.Random whose values are promised to stay the same for ever
    def __init__(self, seed):
        import random

        self.random = random.Random(seed).random

    def choice(self, seq):
        return seq[int(self.random() * len(seq))]

    def chance(self, p):
        return self.random() < p

    def shuffled(self, seq):
        return [x for _, _, x in sorted((self.random(), i, x) for i, x in enumerate(seq))]


def say(dice, text, item):
    # fills the innermost braces and names until none is left
    def fill(m):
        if m.group(1) is not None:
            return dice.choice(m.group(1).split('|'))
        name = m.group(2)
        return item if name == 'item' else str(1000 + int(dice.random() * 9000)) if name == 'n' else dice.choice(WORDS[name])

    while re.search(r'[{<]', text):
        text = re.sub(r'\{([^{}<>]*)\}|<(\w+)>', fill, text)
    text = re.sub(r'\ba (?=[aeio])', 'an ', ' '.join(text.split()))
    return re.sub(r'\b(you|people|children) was\b', r'\1 were', text)


def both_ways(dice, good, item):
    # one line of the table as a good and as a bad claim: ('it works', 'it does not work'); mostly said outright
    flip = dice.chance(0.4)
    said, denied = dice.choice(CLAIMS[OPPOSITE[good] if flip else good]).split(' | ')
    return say(dice, denied if flip else said, item), say(dice, said if flip else denied, item)


def claim(dice, kind, item):
    # 'fine' and 'praise' are good, 'wrong' and 'blame' bad; set phrases come in now and then
    if kind in ALONE and dice.chance(0.25):
        return say(dice, dice.choice(ALONE[kind]), item)
    good = kind in ('fine', 'praise')
    pair = both_ways(dice, kind if good else OPPOSITE[kind], item)
    return pair[0] if good else pair[1]


def outweighed(dice, light, heavy):
    # one claim that counts less than the other, in one or two pieces; mostly the last word counts
    k = dice.random()
    if k < 0.30:
        return [f'{light}, {dice.choice(["but", "but", "but", "yet", "only"])} {heavy}']
    if k < 0.42:
        return [light, f'{dice.choice(["but", "still,", "however,", "and yet", "now", "then"])} {heavy}']
    if k < 0.54:
        return [f'{dice.choice(["although", "even though", "though"])} {light}, {heavy}']
    if k < 0.57:
        return [f'{heavy}, {dice.choice(["although", "even though", "though"])} {light}']
    if k < 0.72:
        who = dice.choice(['I thought', 'I hoped', 'I was told', 'you promised', 'I feared', 'I expected', 'I was sure'])
        return [f'{who} that {light}', f'{dice.choice(["but", "now", "and now", "then", "instead"])} {heavy}']
    if k < 0.96:
        return [f'at first {light}, {dice.choice(["now", "then", "and now", "but then"])} {heavy}']
    return [light, heavy]


def ask(dice, item):
    if dice.chance(0.5):
        return asked(dice, claim(dice, dice.choice(['fine', 'wrong']), item), item)
    return say(dice, dice.choice(CUED if dice.chance(0.6) else PLAIN), item)


def noise(dice, item):
    # what comes before decides nothing: the same for every label
    if dice.chance(0.7):
        return ask(dice, item)
    return say(dice, dice.choice(INFO), item)


def asked(dice, text, item):
    return say(dice, dice.choice(ASKED), item).replace('#', text)


def twins(dice, how, good, item):
    # what two customers say with nearly the same words: the first is content (or neutral), the second is not
    good_claim, bad_claim = claim(dice, good, item), claim(dice, dice.choice(BAD_SIDE[good]), item)
    if good == 'fine' and dice.chance(0.25):
        good_claim = say(dice, dice.choice(SETTLED), item)
    front = [noise(dice, item)] if dice.chance(0.35) else []
    cheer = dice.choice(CHEER if dice.chance(0.7) else GASP) + ', ' if dice.chance(0.15) else ''
    if how == 'order':
        state = dice.random
        dice.random = again = Replay(state)
        one = outweighed(dice, bad_claim, cheer + good_claim)
        again.rewind()
        two = outweighed(dice, good_claim, cheer + bad_claim)
        dice.random = state
    elif how == 'simple':
        one, two = [cheer + good_claim], [cheer + bad_claim]
    elif how == 'negation':
        one, two = ([cheer + x] for x in both_ways(dice, good, item))
    elif how == 'asked':
        # the same claim, once asked and once stated: only the second counts
        text = bad_claim if good == 'fine' else good_claim
        one, two = [asked(dice, text, item)], [cheer + text]
    else:
        one = two = [ask(dice, item) for _ in range(dice.choice([1, 1, 2]))]
    if how == 'order' and dice.chance(0.5):
        more, less = twins(dice, how, good, item)
        one, two = one + more, two + less
    elif how == 'negation' and dice.chance(0.5):
        more, less = twins(dice, how, good, item)
        one, two = one + more, two + less
    return front + one, front + two


class Replay:
    # deals the same numbers twice, so that twins get the same frame
    def __init__(self, random):
        self.random, self.seen, self.at = random, [], 0

    def rewind(self):
        self.at = 0

    def __call__(self):
        if self.at == len(self.seen):
            self.seen.append(self.random())
        self.at += 1
        return self.seen[self.at - 1]


def sentence(text):
    text = text[0].upper() + text[1:]
    return text if text[-1] in '.?!' else text + '.'


def conversation(dice, said, item):
    said = [sentence(x) for x in said]
    if dice.chance(0.4):
        said[0] = sentence(say(dice, dice.choice(HELLO), item)) + ' ' + said[0]
    if dice.chance(0.12):
        said.append(sentence(say(dice, dice.choice(BYE), item)))
    turns = []
    if dice.chance(0.4):
        turns.append('Agent: ' + say(dice, dice.choice(OPENING), item))
    while said:
        n = 1 + int(dice.random() * 2)
        turns.append('Customer: ' + ' '.join(said[:n]))
        said = said[n:]
        if said or dice.chance(0.2):
            who = 'Supervisor' if dice.chance(0.05) else 'Agent'
            turns.append(f'{who}: ' + say(dice, dice.choice(REPLY), item))
    return '\n\n'.join(turns)


def make(seed=seed):
    # all rows, in an order that says nothing about the label
    dice = Dice(seed)
    rows = []
    for how, good, labels, n in PLAN:
        for _ in range(n):
            category = dice.choice(list(PRODUCTS))
            item = dice.choice(PRODUCTS[category])
            for label, said in zip(labels, twins(dice, how, good, item)):
                area = dice.choice(list(TOPICS))
                topic, detail = dice.shuffled(TOPICS[area])[:2]
                about = [area, topic, detail, f'{topic} -> {detail}', label, category, item.capitalize()]
                level = dice.choice(list(LEVELS))
                about += [dice.choice(['less', 'less', 'medium', 'medium', 'high']), level, LEVELS[level]]
                rows.append(about + [conversation(dice, said, item)])
    return dice.shuffled(rows)


if __name__ == '__main__':
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'train.csv')
    with open(path, 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows([columns] + make())
