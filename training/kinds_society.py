# ruff: noqa: E501 -- the phrasings of one relation are easiest to compare one under another
"""People and what they make together: the phrasings of persons, organisations, towns, festivals.

Data only; `relations.py` says what the parts mean, `kinds.py` lists the kinds.
"""

from __future__ import annotations

from training.relations import Kind, relation

PERSON = Kind(
    "person",
    "",
    (
        relation(
            "birthplace",
            "town",
            "{s} was born in {v}.|{s} came into the world in {v}.|The birthplace of {s} is {v}.",
            "Where was {s} born?|In which town was {s} born?|What is the birthplace of {s}?",
        ),
        relation(
            "birth_year",
            "year",
            "{s} was born in the year {v}.|The year of birth of {s} is {v}.|{s} first saw daylight in {v}.",
            "In what year was {s} born?|What is the year of birth of {s}?|Which year was {s} born in?",
        ),
        relation(
            "profession",
            "profession",
            "{s} works as a {v}.|By profession, {s} is a {v}.|{s} earns a living as a {v}.",
            "What does {s} work as?|What is the profession of {s}?|What does {s} do for a living?",
        ),
        relation(
            "employer",
            "organisation",
            "{s} is employed by {v}.|The employer of {s} is {v}.|{s} has a post at {v}.",
            "Who employs {s}?|Which organisation is {s} employed by?|Who is the employer of {s}?",
        ),
        relation(
            "teacher",
            "person",
            "{s} was taught by {v}.|{s} studied under {v}.|The teacher of {s} was {v}.",
            "Who taught {s}?|Under whom did {s} study?|Who was the teacher of {s}?",
        ),
        relation(
            "spouse",
            "person",
            "{s} is married to {v}.|{s} shares a marriage with {v}.|The spouse of {s} is {v}.",
            "Who is {s} married to?|Who is the spouse of {s}?|To whom is {s} married?",
        ),
        relation(
            "home",
            "town",
            "{s} lives in {v}.|The home of {s} is in {v}.|{s} has settled in {v}.",
            "Where does {s} live?|In which town is the home of {s}?|Where has {s} settled?",
        ),
        relation(
            "prize",
            "prize",
            "{s} received the {v}.|{s} was honoured with the {v}.|The prize won by {s} is the {v}.",
            "Which prize did {s} receive?|What prize was {s} honoured with?|Which prize was won by {s}?",
        ),
        relation(
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
        relation(
            "founding_year",
            "year",
            "{s} was founded in {v}.|{s} has existed since {v}.|The founding year of {s} is {v}.",
            "When was {s} founded?|What is the founding year of {s}?|In what year was {s} founded?",
        ),
        relation(
            "founder",
            "person",
            "{s} was founded by {v}.|The founder of {s} was {v}.|{s} owes its founding to {v}.",
            "Who founded {s}?|Who was the founder of {s}?|By whom was {s} founded?",
        ),
        relation(
            "headquarters",
            "town",
            "{s} has its headquarters in {v}.|The head office of {s} is in {v}.|{s} is based in {v}.",
            "Where does {s} have its headquarters?|Where is {s} based?|In which town is the head office of {s}?",
        ),
        relation(
            "director",
            "person",
            "{s} is led by {v}.|The director of {s} is {v}.|{s} has {v} as its director.",
            "Who leads {s}?|Who is the director of {s}?|By whom is {s} led?",
        ),
        relation(
            "staff",
            "people",
            "{s} has a staff of {v}.|The staff of {s} numbers {v}.|{s} gives work to {v}.",
            "How large is the staff of {s}?|How many people does {s} give work to?|How many people work for {s}?",
        ),
        relation(
            "product",
            "product",
            "{s} makes {v}.|The main product of {s} is {v}.|{s} is a maker of {v}.",
            "What does {s} make?|What is the main product of {s}?|Of what is {s} a maker?",
        ),
        relation(
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
        relation(
            "population",
            "people",
            "{s} has a population of {v}.|{s} is home to {v}.|The population of {s} is {v}.",
            "What is the population of {s}?|How many people live in {s}?|How large is the population of {s}?",
        ),
        relation(
            "river",
            "river",
            "{s} lies on the river {v}.|The river through {s} is the {v}.|{s} stands on the banks of the {v}.",
            "On which river does {s} lie?|Which river flows through {s}?|What is the river of {s} called?",
        ),
        relation(
            "mayor",
            "person",
            "{s} has {v} as its mayor.|The mayor of {s} is {v}.|{s} is governed by mayor {v}.",
            "Who is the mayor of {s}?|Who governs {s} as mayor?|Which mayor does {s} have?",
        ),
        relation(
            "region",
            "region",
            "{s} belongs to the region of {v}.|{s} is a town in the region of {v}.|The region around {s} is {v}.",
            "Which region does {s} belong to?|In which region is {s}?|What is the region around {s}?",
        ),
        relation(
            "altitude",
            "metres",
            "{s} lies {v} above the sea.|The altitude of {s} is {v}.|{s} stands at an altitude of {v}.",
            "What is the altitude of {s}?|How high above the sea does {s} lie?|At what altitude does {s} stand?",
        ),
        relation(
            "trade",
            "product",
            "{s} is known for its {v}.|{s} lives from the trade in {v}.|The town trade of {s} is {v}.",
            "What is {s} known for?|From what trade does {s} live?|What is the town trade of {s}?",
        ),
        relation(
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

FESTIVAL = Kind(
    "festival",
    "the ",
    (
        relation(
            "month",
            "month",
            "{s} is held in {v}.|{s} takes place every {v}.|The month of {s} is {v}.",
            "In which month is {s} held?|In which month does {s} take place?|What is the month of {s}?",
        ),
        relation(
            "place",
            "town",
            "{s} is celebrated in {v}.|The people of {v} celebrate {s}.|The town of {s} is {v}.",
            "Where is {s} celebrated?|Which town celebrates {s}?|What is the town of {s}?",
        ),
        relation(
            "initiator",
            "person",
            "{s} was started by {v}.|{s} goes back to {v}.|The initiator of {s} was {v}.",
            "Who started {s}?|To whom does {s} go back?|Who was the initiator of {s}?",
        ),
        relation(
            "dish",
            "dish",
            "{s} is famous for {v}.|The dish of {s} is {v}.|At {s} everyone eats {v}.",
            "What is the dish of {s}?|What does everyone eat at {s}?|What dish is {s} famous for?",
        ),
        relation(
            "visitors",
            "people",
            "{s} draws {v}.|{s} is attended by {v}.|The attendance of {s} is {v}.",
            "How many people does {s} draw?|How many people attend {s}?|What is the attendance of {s}?",
        ),
        relation(
            "duration",
            "days",
            "{s} lasts {v}.|The duration of {s} is {v}.|{s} goes on for {v}.",
            "How long does {s} last?|What is the duration of {s}?|For how long does {s} go on?",
        ),
        relation(
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
