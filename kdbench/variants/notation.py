"""How a variant is written, as text alone: `name[key=value,...]@name[key=value,...]`."""

from kdbench.base.errors import UserError


def split_list(text: str) -> list[str]:
    """Splits at the commas that stand outside brackets.

    Raises:
        UserError: the brackets do not match.
    """
    parts, depth, current = [], 0, ""
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    if depth != 0:
        raise UserError(f"'{text}': the brackets do not match")
    return [part.strip() for part in [*parts, current] if part.strip()]


def split_at(expression: str) -> tuple[str, str | None]:
    """What stands before and behind the one `@` outside brackets, if there is one."""
    depth = 0
    for index, character in enumerate(expression):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "@" and depth == 0:
            return expression[:index].strip(), expression[index + 1 :].strip()
    return expression, None


def split_expression(expression: str) -> tuple[str, dict[str, str]]:
    """The name and what is given in brackets behind it.

    Raises:
        UserError: broken brackets, an item that is no `parameter=value`, or one given twice.
    """
    name, bracket, rest = expression.strip().partition("[")
    if bracket and not rest.endswith("]"):
        raise UserError(f"'{expression}': a variant is written name[parameter=value,...]")
    given: dict[str, str] = {}
    for item in split_list(rest[:-1]):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not value.strip():
            raise UserError(f"'{expression}': '{item}' is not parameter=value")
        if key in given:
            raise UserError(f"'{expression}': {key} is given twice")
        given[key] = value.strip()
    return name.strip(), given
