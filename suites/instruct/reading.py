"""Tasks about a text that stands as the input: closed QA, extraction, summaries."""

from .task import Exercise

ONE = (
    "{person} is a {kind} from {home}. {first} works there as a {job} and eats {food}.",
    "In {home} lives {person}, a {kind} and a {job}. {first} always eats {food}.",
)
TWO = (
    "{person} lives in {home} and eats {food}. {other} lives in {home2} and eats {food2}.",
    "{other} lives in {home2} and eats {food2}. {person} lives in {home} and eats {food}.",
)
SUMMARISE = (
    (
        "Summarise the text in one short sentence.",
        "Give a short summary of the text.",
        "What is the text about, in short?",
    ),
    ("In one short sentence, what is the text about?",),
)
"""How a summary is asked for, in training and only after it."""

READING = (
    Exercise(
        "closed_qa",
        (
            "According to the text, where does {person} live?",
            "In which place does {person} live, according to the text?",
            "Read the text and say where {person} lives.",
        ),
        ("Read the text and name the place where {person} lives.",),
        (
            "According to the text, {person} lives in {home}.",
            "{person} lives in {home}.",
            "The text says that {first} lives in {home}.",
        ),
        ONE,
    ),
    Exercise(
        "closed_qa",
        (
            "According to the text, what does {person} eat?",
            "Which food does {person} eat, according to the text?",
            "Read the text and say what {person} eats.",
        ),
        ("Read the text and name the food that {person} eats.",),
        (
            "According to the text, {person} eats {food}.",
            "{person} eats {food}.",
            "The text says that {first} eats {food}.",
        ),
        TWO,
        slots=("person", "other"),
    ),
    Exercise(
        "information_extraction",
        (
            "List the name, the job and the place in the text.",
            "Which name, job and place stand in the text?",
            "Find the name, the job and the place in the text.",
        ),
        ("Find who and where the text is about, and list the job.",),
        (
            "Name: {person}. Job: {job}. Place: {home}.",
            "The text names {person}, the job {job} and the place {home}.",
            "{person}, {job}, {home}.",
        ),
        ONE,
    ),
    Exercise(
        "closed_qa",
        (),
        (
            "According to the text, where does {person} live and what does {first} eat?",
            "Read the text and say what {person} eats and where {first} lives.",
        ),
        (
            "According to the text, {person} lives in {home} and eats {food}.",
            "{person} lives in {home} and eats {food}.",
            "The text says that {first} lives in {home} and eats {food}.",
        ),
        ONE,
    ),
    Exercise(
        "information_extraction",
        (
            "List all the food in the text.",
            "Which food stands in the text?",
            "Find the food that is named in the text.",
        ),
        ("Find and list all that is food in the text.",),
        (
            "Food: {food} and {food2}.",
            "The text names {food} and {food2}.",
            "{food}, {food2}.",
        ),
        TWO,
        slots=("person", "other"),
    ),
    Exercise(
        "summarization",
        *SUMMARISE,
        (
            "{person} is a {job} in {home}.",
            "The text is about {person}, a {kind} who works as a {job}.",
            "In {home}, {first} works and eats {food}.",
        ),
        ONE,
    ),
    Exercise(
        "summarization",
        *SUMMARISE,
        (
            "{person} and {other} live in {home} and {home2}.",
            "The text is about {person} and {other} and what they eat.",
            "{first} eats {food} and the other eats {food2}.",
        ),
        TWO,
        slots=("person", "other"),
    ),
)
