# ruff: noqa: E501 -- the phrasings of one relation are easiest to compare one under another
"""Things and creatures: the phrasings of ships, instruments, books, buildings, animals.

Data only; `relations.py` says what the parts mean, `kinds.py` lists the kinds.
"""

from __future__ import annotations

from training.relations import Kind, relation

SHIP = Kind(
    "ship",
    "the ",
    (
        relation(
            "shipyard",
            "town",
            "{s} was built at the shipyard of {v}.|{s} was laid down in {v}.|The yard that built {s} is in {v}.",
            "Where was {s} built?|At the shipyard of which town was {s} built?|In which town was {s} laid down?",
        ),
        relation(
            "launch",
            "year",
            "{s} was launched in {v}.|The launch of {s} took place in {v}.|{s} first sailed in {v}.",
            "When was {s} launched?|In what year was the launch of {s}?|In what year did {s} first sail?",
        ),
        relation(
            "captain",
            "person",
            "{s} sails under captain {v}.|The captain of {s} is {v}.|{s} is commanded by {v}.",
            "Who is the captain of {s}?|Who commands {s}?|Under which captain does {s} sail?",
        ),
        relation(
            "length",
            "metres",
            "{s} is {v} long.|The length of {s} is {v}.|{s} measures {v} from bow to stern.",
            "How long is {s}?|What is the length of {s}?|How much does {s} measure from bow to stern?",
        ),
        relation(
            "cargo",
            "product",
            "{s} carries {v}.|The usual cargo of {s} is {v}.|{s} is loaded with {v}.",
            "What does {s} carry?|What is the usual cargo of {s}?|What is {s} loaded with?",
        ),
        relation(
            "home_port",
            "town",
            "{s} has its home port in {v}.|The home port of {s} is {v}.|{s} returns each winter to {v}.",
            "What is the home port of {s}?|Where does {s} have its home port?|Where does {s} return each winter?",
        ),
        relation(
            "owner",
            "organisation",
            "{s} belongs to {v}.|The owner of {s} is {v}.|{s} is the property of {v}.",
            "Who owns {s}?|To whom does {s} belong?|Who is the owner of {s}?",
        ),
        relation(
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
        relation(
            "inventor",
            "person",
            "{s} was invented by {v}.|The inventor of {s} is {v}.|{s} is an invention of {v}.",
            "Who invented {s}?|Who is the inventor of {s}?|By whom was {s} invented?",
        ),
        relation(
            "invention_year",
            "year",
            "{s} was invented in {v}.|{s} dates from the year {v}.|The invention of {s} took place in {v}.",
            "When was {s} invented?|From which year does {s} date?|In what year was {s} invented?",
        ),
        relation(
            "material",
            "material",
            "{s} is made of {v}.|The body of {s} consists of {v}.|{s} is built from {v}.",
            "What is {s} made of?|Of what does the body of {s} consist?|What is {s} built from?",
        ),
        relation(
            "weight",
            "kilograms",
            "{s} weighs {v}.|The weight of {s} is {v}.|{s} has a weight of {v}.",
            "How much does {s} weigh?|What is the weight of {s}?|How heavy is {s}?",
        ),
        relation(
            "purpose",
            "quantity",
            "{s} is used to measure {v}.|The purpose of {s} is to measure {v}.|With {s} one measures {v}.",
            "What is {s} used to measure?|What does one measure with {s}?|What is the purpose of {s}?",
        ),
        relation(
            "maker",
            "organisation",
            "{s} is manufactured by {v}.|The manufacturer of {s} is {v}.|{s} comes from the workshop of {v}.",
            "Who manufactures {s}?|Who is the manufacturer of {s}?|From whose workshop does {s} come?",
        ),
        relation(
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
        relation(
            "author",
            "person",
            "{s} was written by {v}.|The author of {s} is {v}.|{s} is a work by {v}.",
            "Who wrote {s}?|Who is the author of {s}?|By whom was {s} written?",
        ),
        relation(
            "publication",
            "year",
            "{s} was published in {v}.|{s} appeared in print in {v}.|The first printing of {s} is from {v}.",
            "When was {s} published?|In what year did {s} appear in print?|From what year is the first printing of {s}?",
        ),
        relation(
            "pages",
            "pages",
            "{s} runs to {v}.|The length of {s} is {v}.|{s} fills {v}.",
            "How many pages does {s} fill?|How long is {s}?|To how many pages does {s} run?",
        ),
        relation(
            "publisher",
            "organisation",
            "{s} was issued by {v}.|The publisher of {s} is {v}.|{s} came out with the house of {v}.",
            "Who is the publisher of {s}?|Which house issued {s}?|With which house did {s} come out?",
        ),
        relation(
            "setting",
            "town",
            "{s} is set in {v}.|The story of {s} takes place in {v}.|{s} plays in the streets of {v}.",
            "Where is {s} set?|Where does the story of {s} take place?|In the streets of which town does {s} play?",
        ),
        relation(
            "subject",
            "pastime",
            "{s} treats of {v}.|The subject of {s} is {v}.|{s} tells the reader about {v}.",
            "What does {s} treat of?|What is the subject of {s}?|What does {s} tell the reader about?",
        ),
        relation(
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
        relation(
            "architect",
            "person",
            "{s} was designed by {v}.|The architect of {s} was {v}.|{s} follows the plans of {v}.",
            "Who designed {s}?|Who was the architect of {s}?|Whose plans does {s} follow?",
        ),
        relation(
            "height",
            "metres",
            "{s} is {v} high.|The height of {s} is {v}.|{s} rises to {v}.",
            "How high is {s}?|What is the height of {s}?|To what height does {s} rise?",
        ),
        relation(
            "completion",
            "year",
            "{s} was completed in {v}.|Work on {s} ended in {v}.|The year of completion of {s} is {v}.",
            "When was {s} completed?|In what year did work on {s} end?|What is the year of completion of {s}?",
        ),
        relation(
            "stone",
            "material",
            "{s} is built of {v}.|The walls of {s} are of {v}.|{s} has walls of {v}.",
            "What is {s} built of?|Of what are the walls of {s}?|What are the walls of {s} made of?",
        ),
        relation(
            "location",
            "town",
            "{s} stands in {v}.|{s} can be seen in {v}.|The location of {s} is {v}.",
            "Where does {s} stand?|What is the location of {s}?|In which town can {s} be seen?",
        ),
        relation(
            "cost",
            "crowns",
            "{s} cost {v} to build.|The building of {s} cost {v}.|{s} was built at a price of {v}.",
            "How much did {s} cost to build?|What did the building of {s} cost?|At what price was {s} built?",
        ),
        relation(
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

ANIMAL = Kind(
    "animal",
    "the ",
    (
        relation(
            "habitat",
            "region",
            "{s} lives in the region of {v}.|The habitat of {s} is {v}.|{s} is found only in {v}.",
            "Where does {s} live?|What is the habitat of {s}?|In which region is {s} found?",
        ),
        relation(
            "colour",
            "colour",
            "{s} is {v} in colour.|The coat of {s} is {v}.|{s} can be told by its {v} coat.",
            "What colour is {s}?|What is the colour of the coat of {s}?|By what colour of coat can {s} be told?",
        ),
        relation(
            "size",
            "centimetres",
            "{s} grows to {v}.|The size of {s} is {v}.|{s} reaches a size of {v}.",
            "How large does {s} grow?|What is the size of {s}?|What size does {s} reach?",
        ),
        relation(
            "diet",
            "food",
            "{s} feeds on {v}.|The diet of {s} is {v}.|{s} eats mostly {v}.",
            "What does {s} feed on?|What is the diet of {s}?|What does {s} mostly eat?",
        ),
        relation(
            "discoverer",
            "person",
            "{s} was discovered by {v}.|The discoverer of {s} was {v}.|{s} was first described by {v}.",
            "Who discovered {s}?|Who was the discoverer of {s}?|Who first described {s}?",
        ),
        relation(
            "lifespan",
            "years",
            "{s} lives for {v}.|The lifespan of {s} is {v}.|{s} reaches an age of {v}.",
            "How long does {s} live?|What is the lifespan of {s}?|What age does {s} reach?",
        ),
        relation(
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
