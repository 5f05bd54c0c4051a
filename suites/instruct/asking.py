"""Tasks that ask for facts, reasons and classes, without a text to read."""

from .task import Exercise

FACTS = (
    Exercise(
        "open_qa",
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
    Exercise(
        "open_qa",
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
    Exercise(
        "open_qa",
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
    Exercise(
        "open_qa",
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
    Exercise(
        "general_qa",
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
    Exercise(
        "general_qa",
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
        slots=("kind", "home", "season"),
    ),
    Exercise(
        "general_qa",
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
        slots=("job", "home", "season"),
    ),
    Exercise(
        "classification",
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
    Exercise(
        "classification",
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
        slots=("food", "game", "gift"),
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


def _pair(first: int, step: int) -> Exercise:
    """Two facts asked in one instruction."""
    ask_1, say_1 = CLAUSES[first]
    ask_2, say_2 = CLAUSES[(first + step) % len(CLAUSES)]
    ask_2 = ask_2.replace("{person}", "{first}")
    phrasings = (f"Tell me {ask_1} and {ask_2}.", f"Say {ask_1}, and also {ask_2}.")
    return Exercise(
        "open_qa",
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
