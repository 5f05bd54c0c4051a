"""Tasks with open answers: ideas, lines of stories and poems, and the longer ones of `vicuna`."""

from .task import Exercise

IDEAS = (
    Exercise(
        "brainstorming",
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
        slots=("kind", "job", "season"),
    ),
    Exercise(
        "brainstorming",
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
        slots=("person", "season"),
    ),
    Exercise(
        "creative_writing",
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
        slots=("person", "season"),
    ),
    Exercise(
        "creative_writing",
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
        slots=("colour", "kind", "home"),
    ),
)

LONG = (
    Exercise(
        "open_qa",
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
    ),
    Exercise(
        "general_qa",
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
        slots=("person", "season"),
    ),
    Exercise(
        "brainstorming",
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
        slots=("person", "season"),
    ),
    Exercise(
        "creative_writing",
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
        slots=("person", "season"),
    ),
)
"""Open tasks with longer answers, for `vicuna` (and training), not `dolly`."""
