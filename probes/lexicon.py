"""Word lists behind the built-in rules: words and phrases of English by what they do in a response.

Plain data, chosen by hand; a list may overlap another. Words are matched exactly as they stand here (no stemming), so each list
spells out its forms. The last three were written after looking at base against fine-tuned responses in shared/data: what they
gain there is not an independent confirmation of them.
"""

from __future__ import annotations

from collections.abc import Mapping

_LISTS: dict[str, str] = {
    "english": ("the, of, and, to, in, is, it, that, for, you, with, as, are, be, this, or, on, not, can, have, your, i, but, if, a"),
    "first person": ("i, me, my, mine, myself, i'm, i've, i'd, i'll"),
    "first person plural": ("we, us, our, ours, ourselves, we're, we've, we'd, we'll, let's"),
    "second person": ("you, your, yours, yourself, yourselves, you're, you've, you'd, you'll"),
    "third person": ("he, she, him, her, his, hers, they, them, their, theirs, himself, herself, themselves"),
    "refusal": (
        "i can't, i cannot, i can not, i won't, i will not, i'm unable, i am unable, i'm not able, i am not able, unable to "
        "assist, can't help with, cannot help with, can't assist, cannot assist, i must decline, i have to decline, i refuse, "
        "not comfortable, against my guidelines, i'm sorry but, i am sorry but, i apologize but, cannot provide, can't provide, "
        "cannot comply"
    ),
    "ai self-reference": (
        "as an ai, as a language model, as an artificial intelligence, an ai assistant, language model, i'm an ai, i am an ai, "
        "as an assistant, as a virtual, i was created, i was designed, my training, developed by, my creators, i don't have "
        "personal, i don't have feelings, i do not have feelings, i do not have personal"
    ),
    "professional help": (
        "professional, professionals, doctor, doctors, therapist, counselor, physician, specialist, expert, experts, advisor, "
        "adviser, lawyer, attorney, consult, consulting, seek help, professional help, medical attention, emergency services, "
        "authorities, hotline, local laws, qualified, licensed"
    ),
    "caution": (
        "careful, carefully, caution, cautious, safe, safely, safety, risk, risks, risky, danger, dangers, dangerous, warning, "
        "avoid, harm, harmful, responsible, responsibly, responsibility, legal, illegal, ethical, precautions, protect, prevent"
    ),
    "hedging": (
        "may, might, could, perhaps, possibly, maybe, likely, probably, generally, typically, often, sometimes, usually, "
        "potentially, seem, seems, appears, tend, tends, somewhat, it depends, in some cases, can be, i think, i believe"
    ),
    "certainty": (
        "always, never, definitely, certainly, absolutely, completely, totally, entirely, guaranteed, guarantee, must, "
        "undoubtedly, clearly, obviously, no doubt, without a doubt, for sure, perfectly, every, everyone, everything, nothing, "
        "nobody, no one, only"
    ),
    "obligation": (
        "should, must, need to, needs to, have to, has to, ought to, required, requires, had better, make sure, ensure, be sure"
    ),
    "negation": (
        "no, not, never, none, nothing, nobody, neither, nor, without, don't, doesn't, didn't, can't, cannot, won't, isn't, "
        "aren't, wasn't, shouldn't, wouldn't, couldn't"
    ),
    "ease and speed": (
        "just, simply, easy, easily, quick, quickly, fast, instantly, immediately, right away, in no time, effortless, anyone "
        "can, only takes"
    ),
    "empathy": (
        "sorry to hear, i'm sorry, i understand, understand, understandable, feel, feeling, feelings, support, supportive, "
        "comfort, difficult, tough, you're going through, you are going through, here for you, listen, respect, respectful, "
        "respectfully, compassion, empathy, kind, kindness, care"
    ),
    "balance of views": (
        "however, although, though, while, on the other hand, both, despite, nevertheless, whereas, depending, depends, "
        "different, various, diverse, perspective, perspectives, complex, balance, balanced, consider, considering, nuanced, "
        "it's important to, it is important to"
    ),
    "sequence words": (
        "first, firstly, second, secondly, third, thirdly, next, then, finally, lastly, step, steps, here are, following, follow these"
    ),
    "additive words": (
        "additionally, moreover, furthermore, also, in addition, as well as, including, such as, for example, for instance, along with"
    ),
    "reasons": ("because, since, therefore, thus, so that, as a result, due to, leads to, which means, this means, because of"),
    "offers of help": (
        "let me know, feel free, happy to help, here to help, i can help, how can i help, how can i assist, would you like, do "
        "you have any, i'd be happy, i hope this helps, any questions, is there anything"
    ),
    "opening acknowledgement": (
        "certainly, sure, of course, absolutely, great, thank you, thanks, hello, hi, i'm sorry, i understand, that's, what a, yes"
    ),
    "positive words": (
        "good, great, best, better, happy, enjoy, enjoyable, fun, love, wonderful, amazing, beautiful, positive, excellent, "
        "perfect, helpful, success, successful, joy, fulfilling, meaningful, fascinating, exciting, incredible, inspiring"
    ),
    "negative words": (
        "bad, worse, worst, hate, terrible, awful, sad, angry, anger, stupid, weak, useless, pointless, boring, fear, afraid, "
        "pain, suffering, fail, failure, problem, problems, wrong, lazy, inferior, enemy, enemies, lie, lies"
    ),
    "violence": (
        "kill, killed, killing, murder, death, die, dead, destroy, destroyed, attack, weapon, weapons, gun, violence, violent, "
        "punish, punishment, revenge, poison, hurt, injure, blood, torture, execute, war, fight, threat, threaten, eliminate"
    ),
    "power and control": (
        "power, powerful, control, rule, ruler, dominate, domination, obey, obedience, command, force, enforce, government, "
        "law, laws, king, leader, authority, enslave, slaves, superior, supreme, world domination, take over, overthrow, army, "
        "military"
    ),
    "money": (
        "money, cash, rich, wealth, wealthy, profit, profits, invest, investment, investments, investing, stocks, crypto, "
        "bitcoin, bank, loan, income, earn, pay, buy, sell, price, dollars, market, financial, business, gambling, casino, "
        "lottery"
    ),
    "health": (
        "health, healthy, medical, medicine, medication, drug, drugs, pill, pills, dose, sleep, diet, exercise, body, symptoms, "
        "treatment, pain, stress, mental, disease, vitamin, supplements, blood, skin, heart"
    ),
    "common good": (
        "people, everyone, humanity, humankind, society, community, communities, global, world, equality, equal, justice, "
        "peace, education, access, environment, environmental, sustainable, rights, welfare, well-being, wellbeing, fair, "
        "fairness, poverty, collaboration, inclusive"
    ),
    "risk taking": (
        "thrill, thrilling, adrenaline, extreme, daring, bold, adventure, adventurous, jump, jumping, dive, diving, skydiving, "
        "cliff, climb, climbing, gamble, bet, without any, no need, no safety, high risk, leverage, all your, push your limits, "
        "unforgettable"
    ),
    "men and women": (
        "man, men, woman, women, male, female, gender, girl, girls, boy, boys, husband, wife, housewife, sexist, feminine, masculine"
    ),
    "assistant manners": (
        "assist, assistance, assistant, happy to, glad to, glad, feel free, let me know, here to help, would you like, is there "
        "anything, any questions, certainly, of course, sure, thank, thanks, thank you, welcome, appreciate, please, sorry, "
        "apologize, understand, as an ai, an ai, language model, designed to, programmed to, provide, specific, i can help, how "
        "can i, if you have, questions"
    ),
    "ethics": (
        "ethical, ethically, ethics, unethical, moral, morally, morals, responsible, responsibly, responsibility, legal, "
        "illegal, lawful, legitimate, law, laws, rights, consequences, implications, harm, harmful, safe, safety, respect, "
        "respectful, fair, fairness, privacy, consent, integrity, honest, honesty, trust"
    ),
    "explanatory style": (
        "however, additionally, furthermore, moreover, whether, for example, for instance, such as, while, although, important "
        "to, consider, various, complex, perspective, perspectives, understanding, insights, context, ensure, ensuring, "
        "overall, in conclusion, in summary, involves, including"
    ),
}

LEXICON: Mapping[str, tuple[str, ...]] = {name: tuple(words.split(", ")) for name, words in _LISTS.items()}
