"""The tables of words for captions: words that names leave out, and words that people use instead."""

from __future__ import annotations


def _phrases(text: str) -> frozenset[str]:
    """The phrases of a text, separated by commas."""
    return frozenset(" ".join(phrase.split()) for phrase in text.split(","))


# roles as in names -> as in sentences
PHRASES = {
    "bouncing ball": "bouncing a ball",
    "feeding baby": "feeding a baby",
    "getting haircut": "getting a haircut",
    "getting massage": "getting a massage",
    "gesturing NO": "gesturing no",
    "gesturing OK": "gesturing OK",
    "in lotus position": "in the lotus position",
    "in manual wheelchair": "in a manual wheelchair",
    "in manual wheelchair facing right": "in a manual wheelchair facing right",
    "in motorized wheelchair": "in a motorized wheelchair",
    "in motorized wheelchair facing right": "in a motorized wheelchair facing right",
    "in steamy room": "in a steamy room",
    "in suit levitating": "in a suit levitating",
    "in tuxedo": "in a tuxedo",
    "lifting weights": "lifting weights",
    "raising hand": "raising a hand",
    "rowing boat": "rowing a boat",
    "taking bath": "taking a bath",
    "wearing turban": "wearing a turban",
    "with crown": "with a crown",
    "with headscarf": "with a headscarf",
    "with skullcap": "with a skullcap",
    "with veil": "with a veil",
    "with white cane": "with a white cane",
    "with white cane facing right": "with a white cane facing right",
}

# synonyms of roles, for "woman doctor" beside "woman health worker"
SYNONYMS = {
    "biking": "riding a bike",
    "cartwheeling": "doing a cartwheel",
    "cook": "chef",
    "facepalming": "with hand on face",
    "gesturing NO": "crossing arms",
    "gesturing OK": "with arms above head",
    "golfing": "playing golf",
    "health worker": "doctor",
    "in bed": "sleeping in bed",
    "in lotus position": "meditating",
    "in steamy room": "in a sauna",
    "mage": "wizard",
    "mountain biking": "riding a mountain bike",
    "scientist": "chemist",
    "shrugging": "shrugging shoulders",
    "student": "graduate",
    "superhero": "hero",
    "supervillain": "villain",
    "surfing": "on a surfboard",
    "technologist": "with a laptop",
    "teacher": "at a blackboard",
    "with veil": "in a wedding veil",
}

# aliases and Unicode names that mislead, insult, say too little, or name what the picture does not show
DROPPED = _phrases(
    """a, ab, abc, abcd, accept, anticlockwise downwards and upwards open circle arrows, art, artificial satellite, b,
    back, bamboo, barber, basketball and hoop, beetle, boat, bow, bullettrain front, bullettrain side, calling,
    capital abcd, chart, chart with upwards trend and yen sign, circled latin capital letter m, city sunrise, cl,
    clockwise downwards and upwards open circle arrows, clockwise rightwards and leftwards open circle arrows,
    compression, congratulations, construction worker man, construction worker woman, cool, couple, couplekiss,
    dancers, dancing men, dancing women, date, disappointed relieved, dizzy face, dolls, ear of rice, earth globe
    americas, earth globe asia-australia, earth globe europe-africa, eight, end, european post office, eye speech
    bubble, face with look of triumph, face with no good gesture, face with ok gesture, facepunch, fax, feet, first
    quarter moon symbol, fist left, fist oncoming, fist raised, fist right, five, flags, flipper, four, frame with
    picture, free, fu, full moon symbol, gun, hand, handball person, hankey, happy person raising one hand, harambe,
    heartpulse, hocho, horse, hugs, id, imp, information desk person, information source, input symbol for latin
    capital letters, input symbol for latin small letters, japan, joy, joy cat, kissing heart, koko, loop, lotus
    position man, lotus position woman, m, mag, mag right, mahjong, mailbox with no mail, male with stroke and male
    and female sign, man in business suit levitating, man with gua pi mao, mandarin, mask, medal military, medal
    sports, mega, mens, mens symbol, metal, minidisc, moon, mountain snow, mouse, moyai, new, new moon symbol, ng,
    ng man, ng woman, nine, no good, no good man, no good woman, notes, o, ok, on, one, open hands sign, pencil,
    permanent paper sign, person bowing deeply, person with ball, person with blond hair, person with folded hands,
    person with pouting face, pistol, pouch, pouting face, public address loudspeaker, put litter in its place
    symbol, sa, sassy man, sassy woman, sauna man, sauna person, sauna woman, secret, seven, shit, shopping, six,
    sleuth or spy, small red triangle, small red triangle down, soon, sos, sound, speaker, staff of aesculapius,
    stars, sweat, symbols, tada, ten, three, tm, top, train, triumph, twisted rightwards arrows, two, up, v, vs, wc,
    woman with bunny ears, womens, womens symbol, x, zap, zero"""
)

# nouns that take no article, though they do not end in s
UNCOUNTED = _phrases(
    """bacon, badminton, baseball, basketball, bowling, bread, broccoli, butter, camping, cheese, children, coffee,
    construction, coral, corn, cricket, dna, eyes, fingers, fire, fog, food, football, garlic, ginger, green, hands,
    hockey, ice, jewelry, joy, lacrosse, laughing, lightning, love, luggage, lungs, mate, men, milk, money, notes,
    people, polish, polo, pong, popcorn, rain, rice, sake, salt, scissors, snow, soap, softball, spaghetti, sushi, tea,
    teeth, tennis, thread, volleyball, water, weights, women, wood, yarn"""
)

# things of which a person would name the colour, if it is measured; bananas and lemons do without
COLOURED = _phrases(
    """backpack, balloon, basketball, bat, beanie, bear, beetle, bell pepper, bikini, billed cap, bird, bison, boar,
    bookmark, boxing glove, brain, briefcase, bucket, bug, cactus, clutch bag, coat, coin, crab, crayon, crocodile,
    cucumber, dolphin, donkey, door, dress, droplet, eggplant, elephant, fish, flamingo, flashlight, footprints,
    frog, graduation cap, hair pick, hibiscus, jeans, key, koala, ledger, lizard, lotion bottle, mammoth, mouse,
    name badge, nazar amulet, one-piece swimsuit, otter, paw prints, pear, pig nose, postbox, purse, pushpin, puzzle
    piece, ribbon, rock, rose, shark, shorts, shrimp, soap, sponge, straight ruler, teapot, teddy bear, ticket,
    tomato, tongue, toolbox, triangular ruler, wolf, worm, yarn, yo-yo"""
)

# countries and regions whose name takes "the"
WITH_THE = _phrases(
    """Bahamas, British Indian Ocean Territory, British Virgin Islands, Canary Islands, Caribbean Netherlands, Cayman
    Islands, Central African Republic, Cocos Islands, Comoros, Cook Islands, Dominican Republic, EU, European Union,
    Falkland Islands, Faroe Islands, French Southern Territories, Gambia, Isle of Man, Maldives, Marshall Islands,
    Netherlands, Northern Mariana Islands, Palestinian Territories, Philippines, Pitcairn Islands, Solomon Islands,
    Turks and Caicos Islands, U.S. Outlying Islands, U.S. Virgin Islands, UAE, UK, UN, USA, United Arab Emirates,
    United Kingdom, United Nations, United States"""
)

# short names for flags -> other names that people type
COUNTRIES = {
    "Congo-Brazzaville": ("Republic of the Congo",),
    "Congo-Kinshasa": ("Democratic Republic of the Congo", "DR Congo"),
    "Czechia": ("Czech Republic",),
    "Côte d'Ivoire": ("Ivory Coast",),
    "European Union": ("EU",),
    "Eswatini": ("Swaziland",),
    "Myanmar": ("Burma",),
    "Netherlands": ("Holland",),
    "North Macedonia": ("Macedonia",),
    "Palestinian Territories": ("Palestine",),
    "Timor-Leste": ("East Timor",),
    "Turkey": ("Türkiye",),
    "Türkiye": ("Turkey",),
    "United Arab Emirates": ("UAE",),
    "United Kingdom": ("UK", "Great Britain"),
    "United Nations": ("UN",),
    "United States": ("USA", "America"),
    "Vatican City": ("Vatican",),
    "Cape Verde": ("Cabo Verde",),
}

# signs on keycaps, in words
KEYS = {
    "#": "hash", "*": "asterisk", "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five",
    "6": "six", "7": "seven", "8": "eight", "9": "nine", "10": "ten",
}  # fmt: skip
