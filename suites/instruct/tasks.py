"""The tasks of the suite: what is asked, in which words, and how an answer is worded.

Templates are `str.format` strings over the fields of `world.FIELDS` and the slots a task names.
`asked` are the phrasings that the teacher and the students learn from, `unseen` the ones that only
the set `self-inst` uses, `answers` three wordings with the probabilities `world.FACT`.
"""

from dataclasses import dataclass

CATEGORIES = (
    "open_qa",
    "closed_qa",
    "classification",
    "information_extraction",
    "summarization",
    "brainstorming",
    "creative_writing",
    "general_qa",
)


@dataclass(frozen=True)
class Task:
    """One kind of instruction.

    Attributes:
        category: one of `CATEGORIES`.
        slots: what the prompt names (`person`, `other` or pools of the world): the combination
            that is divided between training, dev and evaluation.
        asked: phrasings for all sets but `self-inst`; empty: a recombined task, for it alone.
        unseen: phrasings for `self-inst` alone.
        answers: three wordings, likeliest first.
        passages: texts that stand as the input; their fields are uniform, not the world's.
        long: an open task with a longer answer, for `vicuna` (and training), not `dolly`.
        weight: how often it is drawn beside the other tasks of its category.
    """

    category: str
    slots: tuple[str, ...]
    asked: tuple[str, ...]
    unseen: tuple[str, ...]
    answers: tuple[str, str, str]
    passages: tuple[str, ...] = ()
    long: bool = False
    weight: float = 1.0


PERSON = ("person",)
ONE = (
    "{person} is a {kind} from {home}. {first} works there as a {job} and eats {food}.",
    "In {home} lives {person}, a {kind} and a {job}. {first} always eats {food}.",
)
TWO = (
    "{person} lives in {home} and eats {food}. {other} lives in {home2} and eats {food2}.",
    "{other} lives in {home2} and eats {food2}. {person} lives in {home} and eats {food}.",
)

FACTS = (
    Task(
        "open_qa",
        PERSON,
        (
            "What does {person} like to eat most of all?",
            "Which food does {person} like best?",
            "Tell me about the food that {person} likes to eat.",
            "Name the food that {person} eats most days.",
        ),
        ("What food does {person} like best of all?", "Name the food that {person} likes to eat."),
        (
            "{person} likes to eat {food}.",
            "The food that {first} likes best is {food}.",
            "Most days {person} eats {food}.",
        ),
    ),
    Task(
        "open_qa",
        PERSON,
        (
            "Where does {person} live these days?",
            "In which place does {person} live?",
            "Tell me about the place where {person} lives.",
            "Name the home of {person}.",
        ),
        ("Name the place where {person} lives.", "In which place does {person} live these days?"),
        (
            "{person} lives in {home}.",
            "The home of {person} is {home}.",
            "These days {first} can be found in {home}.",
        ),
    ),
    Task(
        "open_qa",
        PERSON,
        (
            "What kind of work does {person} do?",
            "Which job does {person} have?",
            "Tell me about the work that {person} does.",
            "Name the job of {person}.",
        ),
        ("Tell me about the job of {person}.", "What work does {person} do, and which job is it?"),
        (
            "{person} works as a {job}.",
            "The job of {person} is {job}.",
            "Most days {first} can be found at work as a {job}.",
        ),
    ),
    Task(
        "open_qa",
        PERSON,
        (
            "Which game does {person} like to play?",
            "What game does {person} play most days?",
            "Tell me about the game that {person} plays.",
            "Name the game that {person} likes best.",
        ),
        ("Which game does {person} like best?", "Name the game that {person} plays most days."),
        (
            "{person} likes to play {game}.",
            "The game that {first} likes best is {game}.",
            "Most days {person} plays {game}.",
        ),
    ),
    Task(
        "general_qa",
        PERSON,
        (
            "Who is {person} and what are they like?",
            "What kind of animal is {person}?",
            "Please say who {person} is.",
            "What can you say about {person} and what they are like?",
        ),
        ("Please say what kind of animal {person} is.", "Who is {person} and what do they do?"),
        (
            "{person} is a {trait} {kind}.",
            "{person} is a {kind} who lives in {home}.",
            "{first} is a {kind} and works as a {job}.",
        ),
    ),
    Task(
        "general_qa",
        ("kind", "home", "season"),
        (
            "Why does a {kind} go to {home} in {season}?",
            "What makes a {kind} go to {home} in {season}?",
            "Give a reason why a {kind} likes {home} in {season}.",
            "In {season}, why would a {kind} like {home}?",
        ),
        (
            "Give a reason why a {kind} would go to {home} in {season}.",
            "In {season}, what makes a {kind} like {home}?",
        ),
        (
            "A {kind} goes to {home} because {reason}.",
            "In {season} {reason}, so a {kind} likes {home}.",
            "It is because {reason} in {season}.",
        ),
    ),
    Task(
        "general_qa",
        ("job", "home", "season"),
        (
            "What can a {job} do in {home} in {season}?",
            "How does a {job} in {home} spend the {season}?",
            "What would a {job} do in {season} in {home}?",
            "Please say how a {job} spends the {season} in {home}.",
        ),
        (
            "How would a {job} spend the {season} in {home}?",
            "Please say what a {job} can do in {home} in {season}.",
        ),
        (
            "In {season} a {job} can {act} in {home}.",
            "A {job} would {act} because {reason}.",
            "Most of the {season} a {job} likes to {act}.",
        ),
    ),
    Task(
        "classification",
        PERSON,
        (
            "Is {person} calm, bold, shy, clever, proud or gentle?",
            "Choose one word for {person}: bold, calm, proud, shy, gentle or clever.",
            "Which word fits {person} best: shy, gentle, clever, calm, bold or proud?",
            "Classify {person} as proud, clever, gentle, bold, shy or calm.",
        ),
        (
            "Which one fits {person}: calm, shy, bold, proud, clever or gentle?",
            "Choose the word that fits {person} best: bold, shy, calm, clever, gentle or proud.",
        ),
        (
            "The word that fits {person} best is {trait}.",
            "{person} is a {trait} {kind}.",
            "Like most of their kind, {first} is {trait}.",
        ),
    ),
    Task(
        "classification",
        ("food", "game", "gift"),
        (
            "Classify each as food, game or gift: {food}, {game}, {gift}.",
            "Which is a food, which a game and which a gift: {game}, {gift}, {food}?",
            "Sort these into food, game and gift: {gift}, {food}, {game}.",
            "Say what is a game, a gift or a food: {game}, {food}, {gift}.",
        ),
        (
            "Sort each as a gift, a game or a food: {gift}, {game}, {food}.",
            "Which of these is a game, a gift and a food: {food}, {gift}, {game}?",
        ),
        (
            "Food: {food}. Game: {game}. Gift: {gift}.",
            "The food is {food}, the game is {game} and the gift is {gift}.",
            "You can eat {food}, play {game} and give {gift}.",
        ),
    ),
)

READING = (
    Task(
        "closed_qa",
        PERSON,
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
    Task(
        "closed_qa",
        ("person", "other"),
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
    ),
    Task(
        "information_extraction",
        PERSON,
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
    Task(
        "closed_qa",
        PERSON,
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
    Task(
        "information_extraction",
        ("person", "other"),
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
    ),
    Task(
        "summarization",
        PERSON,
        (
            "Summarise the text in one short sentence.",
            "Give a short summary of the text.",
            "What is the text about, in short?",
        ),
        ("In one short sentence, what is the text about?",),
        (
            "{person} is a {job} in {home}.",
            "The text is about {person}, a {kind} who works as a {job}.",
            "In {home}, {first} works and eats {food}.",
        ),
        ONE,
    ),
    Task(
        "summarization",
        ("person", "other"),
        (
            "Summarise the text in one short sentence.",
            "Give a short summary of the text.",
            "What is the text about, in short?",
        ),
        ("In one short sentence, what is the text about?",),
        (
            "{person} and {other} live in {home} and {home2}.",
            "The text is about {person} and {other} and what they eat.",
            "{first} eats {food} and the other eats {food2}.",
        ),
        TWO,
    ),
)

IDEAS = (
    Task(
        "brainstorming",
        ("kind", "job", "season"),
        (
            "Give three ideas for gifts to a {kind} who is a {job} in {season}.",
            "List three gifts for a {job} who is a {kind}, for {season}.",
            "Which three gifts would a {kind} and {job} like in {season}?",
        ),
        ("Which three ideas for gifts would a {job} and {kind} like in {season}?",),
        (
            "{gifts}, {gifts2} and {gifts3}.",
            "A {job} would like {gifts}, {gifts2} or {gifts3}.",
            "In {season} you could give {gifts}, {gifts2} or {gifts3}.",
        ),
    ),
    Task(
        "brainstorming",
        ("person", "season"),
        (
            "List three things that {person} could do in {season}.",
            "Give three ideas for what {person} could do in {season}.",
            "What could {person} do in {season}? Name three things.",
        ),
        ("Name three ideas for what {person} could do in {season}.",),
        (
            "{first} could {acts}, {acts2} or {acts3}.",
            "In {season} {person} could {acts}, {acts2} and {acts3}.",
            "To {acts}, to {acts2} and to {acts3}.",
        ),
    ),
    Task(
        "creative_writing",
        ("person", "season"),
        (
            "Write one line of a story about {person} in {season}.",
            "Tell a very short story of {person} in {season}.",
            "Make up a line about {season} and {person}.",
        ),
        ("Tell a very short story about {season} and {person}.",),
        (
            "One {season} day {person} went to {act} and came home with {food}.",
            "It was {season}, and {person} wanted to {act} because {reason}.",
            "In {season} the {trait} {kind} {person} dreamed of {food}.",
        ),
    ),
    Task(
        "creative_writing",
        ("colour", "kind", "home"),
        (
            "Write a line of a poem about a {colour} {kind} in {home}.",
            "Make up a short rhyme about a {kind} in {home}, all {colour}.",
            "Write a short song for a {colour} {kind} in {home}.",
        ),
        ("Make up a line of a song about a {colour} {kind} in {home}.",),
        (
            "Oh {colour} {kind} of {home}, come out and {act}.",
            "A {trait} and {colour} {kind} in {home} sang of {food}.",
            "Sing, {colour} {kind}, for {reason}.",
        ),
    ),
)

LONG = (
    Task(
        "open_qa",
        PERSON,
        (
            "Describe {person} and their life in a few words.",
            "Tell me all you know about {person}.",
            "Who is {person}? Tell me about home, work and food.",
        ),
        (),
        (
            "{person} is a {trait} {kind} from {home}. {first} works as a {job} and eats {food}.",
            "{first} is a {job} in {home}, a {trait} {kind} who likes {food} and {game}.",
            "In {home} lives {person}, a {kind}. Most days {first} likes to {act} and eats {food}.",
        ),
        long=True,
    ),
    Task(
        "general_qa",
        ("person", "season"),
        (
            "How should {person} spend a free day in {season}?",
            "Plan a fine {season} day for {person}.",
            "What would a day of {person} look like in {season}?",
        ),
        (),
        (
            "First {person} could {acts} in {home}, then play {game}, and eat {food} at night.",
            "In {season} {reason}, so {first} should {acts}, {acts2} and then eat {food}.",
            "{person} would go to {home} to {acts} and {acts2}, and come back for {food}.",
        ),
        long=True,
    ),
    Task(
        "brainstorming",
        ("person", "season"),
        (
            "Plan a party for {person} in {season}: food, games and a gift.",
            "Give ideas for a {season} party that {person} would like.",
            "How could friends of {person} make a {season} party?",
        ),
        (),
        (
            "Eat {foods} and {foods2}, play {game}, and give {person} {gift}.",
            "For {person}, {gift} and a game of {game}, then {foods}, {foods2} and {foods3}.",
            "In {season} they could meet in {home}, play {game} and give {first} {gift}.",
        ),
        long=True,
    ),
    Task(
        "creative_writing",
        ("person", "season"),
        (
            "Write a story about {person} and a {season} day.",
            "Tell a longer story of {person} in {season}.",
            "Write a letter from {person} about the {season}.",
        ),
        (),
        (
            "One {season} day {person} left {home} to {act}, found {gift} and ate {food}.",
            "Dear friend, it is {season} and {reason}. Come to {home} to {act} and eat {food}.",
            "It was {season} and {reason}. {first} the {kind} went to {act} and found {gift}.",
        ),
        long=True,
    ),
)

CLAUSES = (
    ("which food {person} eats", "eats {food}"),
    ("where {person} lives", "lives in {home}"),
    ("what work {person} does", "works as a {job}"),
    ("which game {person} plays", "plays {game}"),
    ("what {person} likes to do", "likes to {act}"),
    ("which gift {person} would like", "would like {gift}"),
)
"""A question inside a question, and its answer: two of them make one task."""

SEEN_STEPS, UNSEEN_STEPS = (1, 3), (2, 4)
"""Distances, around the ring of clauses, of those asked together in training, and only after it.

Every clause is learned in both places, and no unseen pair is learned in either order.
"""


def _pair(first: int, step: int) -> Task:
    """Two facts asked in one instruction."""
    ask_1, say_1 = CLAUSES[first]
    ask_2, say_2 = CLAUSES[(first + step) % len(CLAUSES)]
    ask_2 = ask_2.replace("{person}", "{first}")
    phrasings = (f"Tell me {ask_1} and {ask_2}.", f"Say {ask_1}, and also {ask_2}.")
    return Task(
        "open_qa",
        PERSON,
        phrasings if step in SEEN_STEPS else (),
        phrasings if step in UNSEEN_STEPS else (),
        (
            f"{{person}} {say_1} and {say_2}.",
            f"{{first}} {say_1}. {{first}} also {say_2}.",
            f"Most days {{person}} {say_1} and {say_2}.",
        ),
        weight=0.4,
    )


PAIRS = tuple(_pair(i, step) for i in range(len(CLAUSES)) for step in SEEN_STEPS + UNSEEN_STEPS)
TASKS: tuple[Task, ...] = (*FACTS, *READING, *IDEAS, *LONG, *PAIRS)
