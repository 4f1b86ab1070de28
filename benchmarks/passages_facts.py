"""Made-up facts, and a question for each that has its answer there alone, in other words.

A template says something about one of several things: a fact and a question name it by different words. Things occur in
several templates, and templates have several things, so that neither alone tells which fact answers. Who, where, when
and how many are made up and are in the fact only. In a few templates, a made-up name is what question and fact share.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FACTS = 300

# What a fact calls a thing, and what the question does.
Pair = tuple[str, str]

GOODS: Sequence[Pair] = (
    ("looms", "weaving machines"),
    ("kettles", "pots to boil water in"),
    ("bicycles", "bikes"),
    ("spectacles", "eyeglasses"),
    ("wardrobes", "closets for clothes"),
    ("lanterns", "portable lamps"),
    ("refrigerators", "fridges"),
    ("carpets", "floor rugs"),
    ("trousers", "pants"),
    ("violins", "fiddles"),
)
ANIMALS: Sequence[Pair] = (
    ("hens", "chickens"),
    ("ponies", "small horses"),
    ("pigs", "swine"),
    ("rabbits", "bunnies"),
    ("dogs", "canines"),
    ("cats", "felines"),
    ("cows", "cattle"),
    ("parrots", "talking birds"),
    ("tortoises", "turtles"),
    ("ewes", "female sheep"),
)
BUILDINGS: Sequence[Pair] = (
    ("library", "place where books are lent"),
    ("harbour", "port"),
    ("bakery", "bread shop"),
    ("cinema", "movie theatre"),
    ("gaol", "prison"),
    ("pharmacy", "drugstore"),
    ("railway station", "train stop"),
    ("chapel", "small church"),
    ("inn", "hotel"),
    ("gymnasium", "sports hall"),
)
ROLES: Sequence[Pair] = (
    ("gardener", "man for the plants and the lawn"),
    ("cook", "chef"),
    ("janitor", "caretaker"),
    ("chauffeur", "driver"),
    ("tailor", "maker of suits"),
    ("solicitor", "lawyer"),
    ("physician", "doctor"),
    ("bookkeeper", "accountant"),
    ("barber", "hairdresser"),
    ("night watchman", "security guard"),
)
FOODS: Sequence[Pair] = (
    ("aubergines", "eggplants"),
    ("courgettes", "zucchini"),
    ("sweets", "candies"),
    ("prawns", "shrimps"),
    ("biscuits", "cookies"),
    ("gherkins", "pickled cucumbers"),
    ("peanuts", "groundnuts"),
    ("loaves of rye", "dark bread"),
    ("crisps", "potato chips"),
    ("dried grapes", "raisins"),
)
VEHICLES: Sequence[Pair] = (
    ("lorries", "trucks"),
    ("ferries", "boats that carry passengers across"),
    ("trams", "streetcars"),
    ("aeroplanes", "aircraft"),
    ("motorcycles", "motorbikes"),
    ("tractors", "farm machines that pull ploughs"),
    ("taxis", "cabs"),
    ("coaches", "buses"),
    ("sledges", "sleighs"),
    ("hearses", "funeral cars"),
)
ILLS: Sequence[Pair] = (
    ("influenza", "the flu"),
    ("insomnia", "sleeplessness"),
    ("nausea", "queasiness"),
    ("toothache", "sore teeth"),
    ("vertigo", "dizziness"),
    ("varicella", "chickenpox"),
    ("scalds", "burns from hot liquids"),
    ("hay fever", "an allergy to pollen"),
    ("baldness", "hair loss"),
    ("myopia", "short-sightedness"),
)
EVENTS: Sequence[Pair] = (
    ("wedding", "marriage ceremony"),
    ("funeral", "burial"),
    ("auction", "public sale to the highest bidder"),
    ("marathon", "long-distance run"),
    ("banquet", "festive dinner"),
    ("procession", "parade"),
    ("coronation", "crowning of the king"),
    ("regatta", "boat race"),
    ("premiere", "opening night"),
    ("duel", "fight between the two rivals"),
)
MATERIALS: Sequence[Pair] = (
    ("petrol", "gasoline"),
    ("timber", "wood"),
    ("quicklime", "burnt lime"),
    ("tinned meat", "canned meat"),
    ("china", "porcelain"),
    ("manure", "dung"),
    ("linen", "cloth made of flax"),
    ("gunpowder", "explosives"),
    ("soot", "black dust from chimneys"),
    ("lead", "heavy grey metal"),
)
# What question and fact call by the same made-up name.
NAMED: Sequence[Pair] = (("", ""),) * 10

# Of each kind, what a fact may say, and what asks for it. In braces are the thing, as the fact or the question calls
# it, and made-up values. A number ranges as it says.
TEMPLATES: Mapping[Sequence[Pair], Sequence[Pair]] = {
    GOODS: (
        ("The return freight of damaged {thing} is borne by {company}.", "Who pays for sending broken {thing} back?"),
        (
            "{company} guarantees its {thing} for {2-60} months, counted from the day of delivery.",
            "How long is the warranty on {thing}?",
        ),
        ("In {town}, a team of {5-90} assembles {thing} by hand.", "How many workers put the {thing} together?"),
        (
            "Customs charges a duty of {3-70} percent on {thing} that are brought into {town}.",
            "What is the tariff on imported {thing}?",
        ),
        (
            "Anyone who orders {thing} at {company} has to make a down payment of {5-50} percent.",
            "What share of the price of {thing} is due in advance?",
        ),
    ),
    ANIMALS: (
        ("At {town}, the {thing} get {20-900} grams of barley every morning.", "How much grain are the {thing} fed?"),
        (
            "The serum of {person} saved {11-99} of 100 {thing} from the marsh disease.",
            "How well did the inoculation of {thing} work?",
        ),
        (
            "Nobody in {town} may keep more than {2-40} {thing} inside the walls.",
            "What is the maximum number of {thing} that a resident is allowed to own?",
        ),
        (
            "The medal for the finest {thing} at the show went to {person}.",
            "Who won first prize with the best {thing}?",
        ),
    ),
    BUILDINGS: (
        ("{person} drew the plans of the {thing} of {town}.", "Who was the architect of the {thing}?"),
        ("Visitors enter the {thing} by the {colour} gate on {town} Street.", "Where is the way into the {thing}?"),
        ("On Sundays, the {thing} shuts at {4-9} in the evening.", "What is the closing time of the {thing}?"),
        (
            "Rebuilding the {thing} after the storm took {2-19} years and {200-9000} crowns.",
            "What did the reconstruction of the {thing} cost?",
        ),
    ),
    ROLES: (
        ("The {thing} earns {300-4000} crowns a month and eats for free.", "What is the salary of the {thing}?"),
        ("{person} has been our {thing} since the spring of {1950-2020}.", "When did the present {thing} start work?"),
        (
            "While the {thing} is on holiday, letters are opened by {person}.",
            "Who reads the mail when the {thing} is away?",
        ),
        (
            "Whoever wants to become a {thing} at {company} sits an examination of {2-12} hours.",
            "How long is the test for applicants for the job of {thing}?",
        ),
    ),
    FOODS: (
        ("All {thing} that {company} sells come from {town}.", "What is the origin of the {thing} in the shop?"),
        ("In a dry cellar, {thing} keep for {9-200} days.", "When do {thing} spoil?"),
        (
            "Children in {town} are forbidden to eat {thing} before {month}.",
            "Until when must the young go without {thing}?",
        ),
        ("{person} invented a machine that sorts {thing} by size.", "Whose device puts {thing} in order of magnitude?"),
    ),
    VEHICLES: (
        ("On the road to {town}, {thing} may go no faster than {11-90} km/h.", "What is the speed limit for {thing}?"),
        (
            "The engines of the {thing} are overhauled every {3-50} weeks.",
            "How often are the motors of the {thing} serviced?",
        ),
        ("{company} had all its {thing} painted {colour}.", "Which colour were the {thing} given?"),
        (
            "When two {thing} collided near {town}, {3-80} people were injured.",
            "How many got hurt in the crash of the {thing}?",
        ),
    ),
    ILLS: (
        (
            "Against {thing}, the villagers of {town} drink a tea of {herb}.",
            "Which plant is a folk remedy for {thing}?",
        ),
        ("Of the crew of the {town}, {3-70} sailors suffered from {thing}.", "How many seamen had {thing}?"),
        (
            "Employees with {thing} may stay at home for {2-20} days without a certificate.",
            "How much sick leave is granted for {thing}?",
        ),
        ("{person} claims to heal {thing} by playing the harp.", "Who tries to cure {thing} with music?"),
    ),
    EVENTS: (
        ("The {thing} was put off until {month} because the bridge had burnt.", "What delayed the {thing}?"),
        (
            "As many as {60-9000} people watched the {thing} from the roofs.",
            "How large was the audience at the {thing}?",
        ),
        ("{person} photographed the {thing} for a newspaper.", "Who took the pictures of the {thing}?"),
        ("After the {thing}, {2-40} silver spoons were missing.", "What was stolen during the {thing}?"),
    ),
    MATERIALS: (
        ("{company} stores its {thing} in a shed behind the canal of {town}.", "Where does the firm keep its {thing}?"),
        ("Whoever handles {thing} has to wear {colour} gloves.", "What protects the hands of those who touch {thing}?"),
        ("Within a year, {thing} rose by {4-90} percent in price.", "How much more expensive did {thing} become?"),
        ("The thieves of {town} hid the {thing} under a haystack.", "Where did the robbers conceal the {thing}?"),
    ),
    NAMED: (
        ("{person} took over the mill from an uncle in {1850-1990}.", "When did {person} inherit the business?"),
        ("Every {3-40} years, the river {town} is frozen from bank to bank.", "How often is there ice on the {town}?"),
        ("Two sisters began {company} in a stable with {2-30} borrowed crowns.", "Who founded {company}?"),
        ("The island of {town} has {20-9000} inhabitants and no road.", "What is the population of {town}?"),
        ("The schooner {town} carried oranges until it sank.", "What was the cargo of the {town}?"),
    ),
}

# What else a paragraph says of a thing that has a fact. It answers none of the questions.
AROUND: Mapping[Sequence[Pair], Sequence[str]] = {
    GOODS: (
        "Most {thing} leave the workshop in crates of beech wood lined with straw.",
        "A small brass plate on the {thing} shows their number.",
        "The catalogue has drawings of {thing} on three pages.",
        "Apprentices learn in their second winter how {thing} are taken apart and cleaned.",
        "Older {thing} are used for spare parts.",
        "Before the fair, the {thing} are polished with wax and lined up by the window.",
    ),
    ANIMALS: (
        "The {thing} are kept in a long shed with a roof of reed.",
        "In hard winters, the {thing} stay inside, and the windows are covered with sacks.",
        "Strangers who want to see the {thing} ring the bell at the well.",
        "The smallest of the {thing} has a white spot above the eye.",
        "A boy looks after the {thing} each evening and sings to them.",
        "Some {thing} were a present from the captain of a ship.",
    ),
    BUILDINGS: (
        "The {thing} stands between two lime trees, and its clock has no hands.",
        "A staircase of iron leads to the attic of the {thing}.",
        "Under the {thing}, masons found coins and a broken jug.",
        "Swallows nest under the eaves of the {thing} each spring.",
        "Postcards of the {thing} are sold at the kiosk opposite.",
        "When it rains, the lights of the {thing} are mirrored in the square.",
    ),
    ROLES: (
        "The {thing} has a room on the ground floor with a view of the yard.",
        "On most mornings, the {thing} is seen with a red scarf and a newspaper.",
        "Nobody knows the house as well as the {thing}.",
        "Complaints about the {thing} are rare and mostly concern the radio.",
        "A second desk was bought so that the {thing} can write in peace.",
        "At the summer party, the {thing} sings old songs.",
    ),
    FOODS: (
        "Large bowls of {thing} stood on the long table by the window.",
        "Few visitors had tasted {thing} before, and most asked for more.",
        "A poster in the hall shows {thing} in bright colours.",
        "On market days, {thing} are weighed on scales of copper.",
        "In an old song, a miller counts {thing} instead of sheep.",
        "The smell of {thing} fills the yard on Fridays.",
    ),
    VEHICLES: (
        "From the hill, the {thing} look like toys.",
        "Each of the {thing} carries a lamp at the back.",
        "A photograph in the archive shows {thing} in deep snow.",
        "Boys from the school know the {thing} by their sound.",
        "New {thing} are blessed by the priest before their first trip.",
        "At night, the {thing} are kept behind a fence of wire.",
    ),
    ILLS: (
        "Old diaries mention {thing} more often than the weather.",
        "A leaflet about {thing} lies in every waiting room of the valley.",
        "Those who have had {thing} talk about it for years.",
        "In a comedy of the time, {thing} is what the hero pretends to have.",
        "Few families were spared by {thing} in that year.",
        "A lecture on {thing} drew a large crowd to the town hall.",
    ),
    EVENTS: (
        "For weeks, nobody in the village spoke of anything but the {thing}.",
        "Flags had been hung from the windows on the morning of the {thing}.",
        "A march was written for the {thing}, and is played to this day.",
        "A stone beside the road recalls the {thing}.",
        "It rained on the day of the {thing}, and the horses were nervous.",
        "Schools were closed for the {thing}.",
    ),
    MATERIALS: (
        "In those years, {thing} was hard to come by and much sought after.",
        "A cart with {thing} came up the valley twice a week.",
        "The account books mention {thing} on every page.",
        "Merchants judged {thing} by eye and by its weight in the hand.",
        "During the war, {thing} was replaced by whatever could be found.",
        "A museum shows how {thing} was used in former times.",
    ),
    NAMED: (
        "Letters in the archive mention {thing} several times.",
        "A street was named after {thing} some years ago.",
        "The name of {thing} is spelt in three ways.",
        "A song about {thing} was popular for a while.",
        "A thin book on {thing} has been out of print for long.",
        "Those who ask about {thing} hear the same story everywhere.",
    ),
}

_STARTS = "Vel Bor Tan Kel Mir Dru Osk Hal Fen Gri Lom Zar Pel Quo Rud Sil Tov Wes Yar Cas Nim Jor Ekl Ulv"
_MIDDLES = "mar ven dis lo tri gan be sto ru fil ka nor"
_ENDS = "ra din sk holm ta by nov ell mouth eck ua fors ine ock"
_FIRST_NAMES = "Orla Henrik Maude Tobias Ines Caspar Ludmila Owen Petra Silas Greta Amos Wanda Felix Hedda Ruben"
_TRADES = "Textiles, Brothers, and Sons, Trading, Works, Outfitters, Limited, Stores, Holdings, Supplies"
_COLOURS = "green, yellow, purple, white, black, orange, brown, grey, pink, scarlet"
_MONTHS = "January, February, March, April, May, June, July, August, September, October, November, December"
_HERBS = "nettles, sage, thyme, wormwood, lime blossom, yarrow, fennel, juniper, chamomile, mint"


@dataclass(frozen=True)
class Fact:
    """A sentence, the question that it answers, and the number of the template that both are made by.

    `before` and `after` are what else the paragraph says, of the same thing.
    """

    sentence: str
    question: str
    template: int
    before: str = ""
    after: str = ""


def facts(count: int = FACTS, *, around: bool = False, named: bool = False, seed: int = 0) -> list[Fact]:
    """So many facts, of all templates as evenly as possible, in a seeded order.

    The sentences stand alone, unless `around` each, a paragraph says other things of the same. If they are `named`, a
    question names the town, company or person that its fact is about, as people do who know of it, unless that is what
    it asks for.
    """
    chance = random.Random(seed)
    names, sides = _Names(chance), random.Random(seed)
    kinds = [(things, template) for things, templates in TEMPLATES.items() for template in templates]
    made = []
    for number, (things, template) in enumerate(kinds):
        share = (count + len(kinds) - 1 - number) // len(kinds)
        for pair in chance.sample(things, share):
            told, asked, thing, name = _made(template, pair, names)
            if named and name and not asked.startswith(_ASKS_FOR_NAMES):
                asked = f"{name}: {asked}"
            sentences = sides.sample(AROUND[things], len(AROUND[things]))
            place = sides.randint(0, len(sentences))
            before, after = (" ".join(part).format(thing=thing) for part in (sentences[:place], sentences[place:]))
            made.append(Fact(told, asked, number, *((before, after) if around else ())))
    chance.shuffle(made)
    return made


_ASKS_FOR_NAMES = (
    "Who",
    "Where",
    "Which town",
    "Which company",
    "Which firm",
    "In which",
    "At which",
    "By whom",
    "What is the origin",
)


def _made(template: Pair, things: Pair, names: _Names) -> tuple[str, str, str, str]:
    """A fact, its question, what the fact is about, which is a thing or has the made-up name, and that name."""
    values = names.values(template[0])
    told, asked = (text.format_map({**values, "thing": thing}) for text, thing in zip(template, things, strict=True))
    name = next((values[kind] for kind in ("town", "company", "person") if kind in values), "")
    return told[0].upper() + told[1:], asked, things[0] or name, name


class _Names:
    """Names that are made up, each once, and other values."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._taken: set[str] = set()

    def values(self, template: str) -> dict[str, str]:
        """What fills the braces of a template."""
        kinds: dict[str, Callable[[], str]] = {
            "town": self._name,
            "company": lambda: f"{self._name()} {self._one(_TRADES)}",
            "person": lambda: f"{self._chance.choice(_FIRST_NAMES.split())} {self._name()}",
            "colour": lambda: self._one(_COLOURS),
            "month": lambda: self._one(_MONTHS),
            "herb": lambda: self._one(_HERBS),
        }
        fields = [part.split("}")[0] for part in template.split("{")[1:]]
        return {each: kinds[each]() if each in kinds else self._number(each) for each in fields if each != "thing"}

    def _one(self, listed: str) -> str:
        return self._chance.choice(listed.split(", "))

    def _number(self, bounds: str) -> str:
        least, most = bounds.split("-")
        return str(self._chance.randint(int(least), int(most)))

    def _name(self) -> str:
        while True:
            name = "".join(self._chance.choice(parts.split()) for parts in (_STARTS, _MIDDLES, _ENDS))
            if name not in self._taken:
                self._taken.add(name)
                return name
