# ruff: noqa: E501 -- the phrasings of one relation are easiest to compare one under another
"""The vocabulary of the fictional world: kinds of entity and what can be said and asked of each.

This module is data. It knows nothing of passages, samples, tokens or models. In every phrase `{s}`
is the subject and `{v}` the value; a statement must contain the value literally and as a unit,
because answers are copied from it. Within one kind no fact follows from another, so that a
question about an unstated fact really has no answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One fact that entities of a kind can have, with its phrasings."""

    name: str
    value: str  # the kind of value, as `values.make_value` takes it
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of entity: how it is named, referred to and described."""

    name: str
    article: str  # "the " or ""
    relations: tuple[Relation, ...]
    filler: tuple[str, ...]  # sentences that state none of the relations


def _relation(name: str, value: str, statements: str, questions: str) -> Relation:
    """Build a relation from phrasings separated by `|`."""
    return Relation(name, value, tuple(statements.split("|")), tuple(questions.split("|")))


PERSON = Kind(
    "person",
    "",
    (
        _relation(
            "birthplace",
            "town",
            "{s} was born in {v}.|{s} came into the world in {v}.|The birthplace of {s} is {v}.",
            "Where was {s} born?|In which town was {s} born?|What is the birthplace of {s}?",
        ),
        _relation(
            "birth_year",
            "year",
            "{s} was born in the year {v}.|The year of birth of {s} is {v}.|{s} first saw daylight in {v}.",
            "In what year was {s} born?|What is the year of birth of {s}?|Which year was {s} born in?",
        ),
        _relation(
            "profession",
            "profession",
            "{s} works as a {v}.|By profession, {s} is a {v}.|{s} earns a living as a {v}.",
            "What does {s} work as?|What is the profession of {s}?|What does {s} do for a living?",
        ),
        _relation(
            "employer",
            "organisation",
            "{s} is employed by {v}.|The employer of {s} is {v}.|{s} has a post at {v}.",
            "Who employs {s}?|Which organisation is {s} employed by?|Who is the employer of {s}?",
        ),
        _relation(
            "teacher",
            "person",
            "{s} was taught by {v}.|{s} studied under {v}.|The teacher of {s} was {v}.",
            "Who taught {s}?|Under whom did {s} study?|Who was the teacher of {s}?",
        ),
        _relation(
            "spouse",
            "person",
            "{s} is married to {v}.|{s} shares a marriage with {v}.|The spouse of {s} is {v}.",
            "Who is {s} married to?|Who is the spouse of {s}?|To whom is {s} married?",
        ),
        _relation(
            "home",
            "town",
            "{s} lives in {v}.|The home of {s} is in {v}.|{s} has settled in {v}.",
            "Where does {s} live?|In which town is the home of {s}?|Where has {s} settled?",
        ),
        _relation(
            "prize",
            "prize",
            "{s} received the {v}.|{s} was honoured with the {v}.|The prize won by {s} is the {v}.",
            "Which prize did {s} receive?|What prize was {s} honoured with?|Which prize was won by {s}?",
        ),
        _relation(
            "pastime",
            "pastime",
            "{s} spends free days on {v}.|The favourite pastime of {s} is {v}.|{s} is fond of {v}.",
            "What is the favourite pastime of {s}?|What does {s} spend free days on?|What is {s} fond of?",
        ),
    ),
    (
        "Friends describe a quiet and patient character.",
        "Letters from this period are kept in a small archive.",
        "Not much else is known with certainty.",
    ),
)

ORGANISATION = Kind(
    "organisation",
    "",
    (
        _relation(
            "founding_year",
            "year",
            "{s} was founded in {v}.|{s} has existed since {v}.|The founding year of {s} is {v}.",
            "When was {s} founded?|What is the founding year of {s}?|In what year was {s} founded?",
        ),
        _relation(
            "founder",
            "person",
            "{s} was founded by {v}.|The founder of {s} was {v}.|{s} owes its founding to {v}.",
            "Who founded {s}?|Who was the founder of {s}?|By whom was {s} founded?",
        ),
        _relation(
            "headquarters",
            "town",
            "{s} has its headquarters in {v}.|The head office of {s} is in {v}.|{s} is based in {v}.",
            "Where does {s} have its headquarters?|Where is {s} based?|In which town is the head office of {s}?",
        ),
        _relation(
            "director",
            "person",
            "{s} is led by {v}.|The director of {s} is {v}.|{s} has {v} as its director.",
            "Who leads {s}?|Who is the director of {s}?|By whom is {s} led?",
        ),
        _relation(
            "staff",
            "people",
            "{s} has a staff of {v}.|The staff of {s} numbers {v}.|{s} gives work to {v}.",
            "How large is the staff of {s}?|How many people does {s} give work to?|How many people work for {s}?",
        ),
        _relation(
            "product",
            "product",
            "{s} makes {v}.|The main product of {s} is {v}.|{s} is a maker of {v}.",
            "What does {s} make?|What is the main product of {s}?|Of what is {s} a maker?",
        ),
        _relation(
            "emblem",
            "emblem",
            "{s} has a {v} as its emblem.|The emblem of {s} is a {v}.|{s} shows a {v} on its seal.",
            "What is the emblem of {s}?|What does {s} have as its emblem?|What does {s} show on its seal?",
        ),
    ),
    (
        "Its yearly report is read with interest.",
        "The public may visit on the first day of each month.",
        "Several rivals have come and gone.",
    ),
)

TOWN = Kind(
    "town",
    "",
    (
        _relation(
            "population",
            "people",
            "{s} has a population of {v}.|{s} is home to {v}.|The population of {s} is {v}.",
            "What is the population of {s}?|How many people live in {s}?|How large is the population of {s}?",
        ),
        _relation(
            "river",
            "river",
            "{s} lies on the river {v}.|The river through {s} is the {v}.|{s} stands on the banks of the {v}.",
            "On which river does {s} lie?|Which river flows through {s}?|What is the river of {s} called?",
        ),
        _relation(
            "mayor",
            "person",
            "{s} has {v} as its mayor.|The mayor of {s} is {v}.|{s} is governed by mayor {v}.",
            "Who is the mayor of {s}?|Who governs {s} as mayor?|Which mayor does {s} have?",
        ),
        _relation(
            "region",
            "region",
            "{s} belongs to the region of {v}.|{s} is a town in the region of {v}.|The region around {s} is {v}.",
            "Which region does {s} belong to?|In which region is {s}?|What is the region around {s}?",
        ),
        _relation(
            "altitude",
            "metres",
            "{s} lies {v} above the sea.|The altitude of {s} is {v}.|{s} stands at an altitude of {v}.",
            "What is the altitude of {s}?|How high above the sea does {s} lie?|At what altitude does {s} stand?",
        ),
        _relation(
            "trade",
            "product",
            "{s} is known for its {v}.|{s} lives from the trade in {v}.|The town trade of {s} is {v}.",
            "What is {s} known for?|From what trade does {s} live?|What is the town trade of {s}?",
        ),
        _relation(
            "patron",
            "person",
            "{s} honours {v} as its patron.|The patron of {s} is {v}.|{s} has a statue of its patron, {v}.",
            "Who is the patron of {s}?|Whom does {s} honour as its patron?|Which patron does {s} honour?",
        ),
    ),
    (
        "The market square is paved with grey stone.",
        "Travellers praise the clean air.",
        "A road leads north through low hills.",
    ),
)

SHIP = Kind(
    "ship",
    "the ",
    (
        _relation(
            "shipyard",
            "town",
            "{s} was built at the shipyard of {v}.|{s} was laid down in {v}.|The yard that built {s} is in {v}.",
            "Where was {s} built?|At the shipyard of which town was {s} built?|In which town was {s} laid down?",
        ),
        _relation(
            "launch",
            "year",
            "{s} was launched in {v}.|The launch of {s} took place in {v}.|{s} first sailed in {v}.",
            "When was {s} launched?|In what year was the launch of {s}?|In what year did {s} first sail?",
        ),
        _relation(
            "captain",
            "person",
            "{s} sails under captain {v}.|The captain of {s} is {v}.|{s} is commanded by {v}.",
            "Who is the captain of {s}?|Who commands {s}?|Under which captain does {s} sail?",
        ),
        _relation(
            "length",
            "metres",
            "{s} is {v} long.|The length of {s} is {v}.|{s} measures {v} from bow to stern.",
            "How long is {s}?|What is the length of {s}?|How much does {s} measure from bow to stern?",
        ),
        _relation(
            "cargo",
            "product",
            "{s} carries {v}.|The usual cargo of {s} is {v}.|{s} is loaded with {v}.",
            "What does {s} carry?|What is the usual cargo of {s}?|What is {s} loaded with?",
        ),
        _relation(
            "home_port",
            "town",
            "{s} has its home port in {v}.|The home port of {s} is {v}.|{s} returns each winter to {v}.",
            "What is the home port of {s}?|Where does {s} have its home port?|Where does {s} return each winter?",
        ),
        _relation(
            "owner",
            "organisation",
            "{s} belongs to {v}.|The owner of {s} is {v}.|{s} is the property of {v}.",
            "Who owns {s}?|To whom does {s} belong?|Who is the owner of {s}?",
        ),
        _relation(
            "crew",
            "people",
            "{s} has a crew of {v}.|The crew of {s} numbers {v}.|{s} needs a crew of {v}.",
            "How large is the crew of {s}?|What crew does {s} need?|How many people are in the crew of {s}?",
        ),
    ),
    (
        "Sailors say that the bell rings on calm nights.",
        "The hull was repainted after a storm.",
        "Many songs mention the voyage.",
    ),
)

INSTRUMENT = Kind(
    "instrument",
    "the ",
    (
        _relation(
            "inventor",
            "person",
            "{s} was invented by {v}.|The inventor of {s} is {v}.|{s} is an invention of {v}.",
            "Who invented {s}?|Who is the inventor of {s}?|By whom was {s} invented?",
        ),
        _relation(
            "invention_year",
            "year",
            "{s} was invented in {v}.|{s} dates from the year {v}.|The invention of {s} took place in {v}.",
            "When was {s} invented?|From which year does {s} date?|In what year was {s} invented?",
        ),
        _relation(
            "material",
            "material",
            "{s} is made of {v}.|The body of {s} consists of {v}.|{s} is built from {v}.",
            "What is {s} made of?|Of what does the body of {s} consist?|What is {s} built from?",
        ),
        _relation(
            "weight",
            "kilograms",
            "{s} weighs {v}.|The weight of {s} is {v}.|{s} has a weight of {v}.",
            "How much does {s} weigh?|What is the weight of {s}?|How heavy is {s}?",
        ),
        _relation(
            "purpose",
            "quantity",
            "{s} is used to measure {v}.|The purpose of {s} is to measure {v}.|With {s} one measures {v}.",
            "What is {s} used to measure?|What does one measure with {s}?|What is the purpose of {s}?",
        ),
        _relation(
            "maker",
            "organisation",
            "{s} is manufactured by {v}.|The manufacturer of {s} is {v}.|{s} comes from the workshop of {v}.",
            "Who manufactures {s}?|Who is the manufacturer of {s}?|From whose workshop does {s} come?",
        ),
        _relation(
            "price",
            "crowns",
            "{s} costs {v}.|The price of {s} is {v}.|{s} is sold for {v}.",
            "How much does {s} cost?|What is the price of {s}?|For how much is {s} sold?",
        ),
    ),
    (
        "It must be kept dry and out of the sun.",
        "A leather case protects it on journeys.",
        "Students learn to handle it in their second year.",
    ),
)

BOOK = Kind(
    "book",
    "the ",
    (
        _relation(
            "author",
            "person",
            "{s} was written by {v}.|The author of {s} is {v}.|{s} is a work by {v}.",
            "Who wrote {s}?|Who is the author of {s}?|By whom was {s} written?",
        ),
        _relation(
            "publication",
            "year",
            "{s} was published in {v}.|{s} appeared in print in {v}.|The first printing of {s} is from {v}.",
            "When was {s} published?|In what year did {s} appear in print?|From what year is the first printing of {s}?",
        ),
        _relation(
            "pages",
            "pages",
            "{s} runs to {v}.|The length of {s} is {v}.|{s} fills {v}.",
            "How many pages does {s} fill?|How long is {s}?|To how many pages does {s} run?",
        ),
        _relation(
            "publisher",
            "organisation",
            "{s} was issued by {v}.|The publisher of {s} is {v}.|{s} came out with the house of {v}.",
            "Who is the publisher of {s}?|Which house issued {s}?|With which house did {s} come out?",
        ),
        _relation(
            "setting",
            "town",
            "{s} is set in {v}.|The story of {s} takes place in {v}.|{s} plays in the streets of {v}.",
            "Where is {s} set?|Where does the story of {s} take place?|In the streets of which town does {s} play?",
        ),
        _relation(
            "subject",
            "pastime",
            "{s} treats of {v}.|The subject of {s} is {v}.|{s} tells the reader about {v}.",
            "What does {s} treat of?|What is the subject of {s}?|What does {s} tell the reader about?",
        ),
        _relation(
            "translator",
            "person",
            "{s} was translated by {v}.|The translator of {s} is {v}.|{s} reached other tongues through {v}.",
            "Who translated {s}?|Who is the translator of {s}?|By whom was {s} translated?",
        ),
    ),
    (
        "Critics were divided at first.",
        "A worn copy lies in many a school library.",
        "The last chapter is often read aloud.",
    ),
)

BUILDING = Kind(
    "building",
    "the ",
    (
        _relation(
            "architect",
            "person",
            "{s} was designed by {v}.|The architect of {s} was {v}.|{s} follows the plans of {v}.",
            "Who designed {s}?|Who was the architect of {s}?|Whose plans does {s} follow?",
        ),
        _relation(
            "height",
            "metres",
            "{s} is {v} high.|The height of {s} is {v}.|{s} rises to {v}.",
            "How high is {s}?|What is the height of {s}?|To what height does {s} rise?",
        ),
        _relation(
            "completion",
            "year",
            "{s} was completed in {v}.|Work on {s} ended in {v}.|The year of completion of {s} is {v}.",
            "When was {s} completed?|In what year did work on {s} end?|What is the year of completion of {s}?",
        ),
        _relation(
            "stone",
            "material",
            "{s} is built of {v}.|The walls of {s} are of {v}.|{s} has walls of {v}.",
            "What is {s} built of?|Of what are the walls of {s}?|What are the walls of {s} made of?",
        ),
        _relation(
            "location",
            "town",
            "{s} stands in {v}.|{s} can be seen in {v}.|The location of {s} is {v}.",
            "Where does {s} stand?|What is the location of {s}?|In which town can {s} be seen?",
        ),
        _relation(
            "cost",
            "crowns",
            "{s} cost {v} to build.|The building of {s} cost {v}.|{s} was built at a price of {v}.",
            "How much did {s} cost to build?|What did the building of {s} cost?|At what price was {s} built?",
        ),
        _relation(
            "keeper",
            "person",
            "{s} is looked after by {v}.|The keeper of {s} is {v}.|{s} is in the care of {v}.",
            "Who looks after {s}?|Who is the keeper of {s}?|In whose care is {s}?",
        ),
    ),
    (
        "Swallows nest under the roof.",
        "A small door on the east side is always open.",
        "It was restored after a fire.",
    ),
)

FESTIVAL = Kind(
    "festival",
    "the ",
    (
        _relation(
            "month",
            "month",
            "{s} is held in {v}.|{s} takes place every {v}.|The month of {s} is {v}.",
            "In which month is {s} held?|In which month does {s} take place?|What is the month of {s}?",
        ),
        _relation(
            "place",
            "town",
            "{s} is celebrated in {v}.|The people of {v} celebrate {s}.|The town of {s} is {v}.",
            "Where is {s} celebrated?|Which town celebrates {s}?|What is the town of {s}?",
        ),
        _relation(
            "initiator",
            "person",
            "{s} was started by {v}.|{s} goes back to {v}.|The initiator of {s} was {v}.",
            "Who started {s}?|To whom does {s} go back?|Who was the initiator of {s}?",
        ),
        _relation(
            "dish",
            "dish",
            "{s} is famous for {v}.|The dish of {s} is {v}.|At {s} everyone eats {v}.",
            "What is the dish of {s}?|What does everyone eat at {s}?|What dish is {s} famous for?",
        ),
        _relation(
            "visitors",
            "people",
            "{s} draws {v}.|{s} is attended by {v}.|The attendance of {s} is {v}.",
            "How many people does {s} draw?|How many people attend {s}?|What is the attendance of {s}?",
        ),
        _relation(
            "duration",
            "days",
            "{s} lasts {v}.|The duration of {s} is {v}.|{s} goes on for {v}.",
            "How long does {s} last?|What is the duration of {s}?|For how long does {s} go on?",
        ),
        _relation(
            "sponsor",
            "organisation",
            "{s} is paid for by {v}.|The sponsor of {s} is {v}.|{s} is sponsored by {v}.",
            "Who pays for {s}?|Who is the sponsor of {s}?|By whom is {s} sponsored?",
        ),
    ),
    (
        "Lanterns are hung along the streets.",
        "Children are given paper masks.",
        "Rain has never stopped the dancing.",
    ),
)

ANIMAL = Kind(
    "animal",
    "the ",
    (
        _relation(
            "habitat",
            "region",
            "{s} lives in the region of {v}.|The habitat of {s} is {v}.|{s} is found only in {v}.",
            "Where does {s} live?|What is the habitat of {s}?|In which region is {s} found?",
        ),
        _relation(
            "colour",
            "colour",
            "{s} is {v} in colour.|The coat of {s} is {v}.|{s} can be told by its {v} coat.",
            "What colour is {s}?|What is the colour of the coat of {s}?|By what colour of coat can {s} be told?",
        ),
        _relation(
            "size",
            "centimetres",
            "{s} grows to {v}.|The size of {s} is {v}.|{s} reaches a size of {v}.",
            "How large does {s} grow?|What is the size of {s}?|What size does {s} reach?",
        ),
        _relation(
            "diet",
            "food",
            "{s} feeds on {v}.|The diet of {s} is {v}.|{s} eats mostly {v}.",
            "What does {s} feed on?|What is the diet of {s}?|What does {s} mostly eat?",
        ),
        _relation(
            "discoverer",
            "person",
            "{s} was discovered by {v}.|The discoverer of {s} was {v}.|{s} was first described by {v}.",
            "Who discovered {s}?|Who was the discoverer of {s}?|Who first described {s}?",
        ),
        _relation(
            "lifespan",
            "years",
            "{s} lives for {v}.|The lifespan of {s} is {v}.|{s} reaches an age of {v}.",
            "How long does {s} live?|What is the lifespan of {s}?|What age does {s} reach?",
        ),
        _relation(
            "discovery",
            "year",
            "{s} was discovered in {v}.|The discovery of {s} took place in {v}.|{s} has been known since {v}.",
            "When was {s} discovered?|In what year was the discovery of {s}?|Since when has {s} been known?",
        ),
    ),
    (
        "It is shy and seldom seen by day.",
        "Old tales call it a sign of good luck.",
        "Its tracks are easy to follow in snow.",
    ),
)

KINDS: tuple[Kind, ...] = (
    PERSON,
    ORGANISATION,
    TOWN,
    SHIP,
    INSTRUMENT,
    BOOK,
    BUILDING,
    FESTIVAL,
    ANIMAL,
)
