"""Sums, polynomials, chains of signs, expressions and boards, read from their text."""

import re

from tests.tasks.others import Known


def total(prompt: str, rendering: str) -> str:
    pattern = r"([\d ]+)\.\nQ: sum modulo (\d+)\nA:" if rendering == "text" else r"([\d ]+) \? (\d+)"
    items, modulus = re.fullmatch(pattern, prompt).groups()
    return str(sum(map(int, items.split())) % int(modulus))


def polynomial(prompt: str, rendering: str) -> str:
    pattern = r"(.+)\.\nQ: x = (\d+) modulo (\d+)\nA:" if rendering == "text" else r"(.+) \? (\d+) = (\d+)"
    body, x, prime = re.fullmatch(pattern, prompt).groups()
    plus, power = ("+", "x^") if rendering == "text" else (";", "#")
    terms = [[int(part) for part in term.split(power)] for term in body.split(plus)]
    return str(sum(coefficient * int(x) ** degree for coefficient, degree in terms) % int(prime))


def lego(prompt: str, rendering: str) -> str:
    if rendering == "text":
        body, variable = re.fullmatch(r"(.*)\nQ: what is (.*)\?\nA:", prompt).groups()
    else:
        body, variable = prompt.split(" ? ")
    minus, one = ("-", "1") if rendering == "text" else ("zero", "one")
    clauses = [clause.replace("=", " ").split() for clause in body.strip(" ;").split(";")]
    means = {left: (sign, right) for left, sign, right in clauses}
    assert len(means) == len(clauses)
    negative = False
    while variable != one:
        sign, variable = means[variable]
        negative ^= sign == minus
    return f"{minus if negative else '+' if rendering == 'text' else 'one'} {one}"


def mano(prompt: str, rendering: str) -> str:
    text = rendering == "text"
    pattern = r"(.+)\.\nQ: modulo (\d+)\nA:" if text else r"(.+) \? (\d+)"
    body, prime = re.fullmatch(pattern, prompt).groups()
    plus, minus, times = "+-*" if text else (";", "->", "#")
    words = iter(body.split())

    def value() -> int:
        if (word := next(words)) not in (plus, minus, times):
            return int(word)
        left, right = value(), value()
        return left + right if word == plus else left - right if word == minus else left * right

    result = value() % int(prime)
    assert next(words, None) is None
    return str(result)


def minesweeper(prompt: str, rendering: str) -> str:
    text = rendering == "text"
    body = prompt.partition("Q: count mines" if text else " ?")[0]
    rows = [row.split() for row in body.strip(" ;\n").split("\n" if text else ";")]
    sign = "x" if text else "one"
    mines = {(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell == sign}

    def seen(i: int, j: int) -> str:
        around = {(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)}
        return sign if (i, j) in mines else str(len(around & mines))

    return " ".join(seen(i, j) for i, row in enumerate(rows) for j in range(len(row)))


RECKONING = {
    "sum": Known(
        total,
        {"n_items": (2, 2), "modulus": 4},
        ({"modulus": 2}, {"modulus": 97}),
        {"modulus=1: expected an integer from 2 to 127": {"modulus": 1}},
        share=0.2,
    ),
    "polynomial": Known(
        polynomial,
        {"n_terms": (1, 1), "modulus": 3},
        ({"modulus": 2, "max_degree": 0}, {"modulus": 127, "max_degree": 16}),
        {
            "modulus=12: expected a prime from 2 to 127": {"modulus": 12},
            "max_degree=17: expected an integer from 0 to 16": {"max_degree": 17},
        },
        share=0.2,
    ),
    "lego": Known(
        lego,
        {"n_variables": (2, 2), "symbols": [2, 2, 2]},
        ({"shuffled": False},),
        {"shuffled=1: expected true": {"shuffled": 1}},
        share=0.6,
    ),
    "mano": Known(
        mano,
        {"n_operations": (1, 1), "modulus": 3},
        ({"modulus": 2}, {"modulus": 127, "n_operations": (30, 30)}),
        {"modulus=21: expected a prime from 2 to 127": {"modulus": 21}},
        share=0.15,
    ),
    "minesweeper": Known(
        minesweeper,
        {"n_rows": (2, 2), "n_columns": 2},
        ({"n_columns": 1}, {"n_columns": 9, "density": 0.6}),
        {
            "n_columns=0: expected an integer from 1": {"n_columns": 0},
            "density=1: expected a number between 0 and 1": {"density": 1},
            "symbols: 8 numbers; expected at least 9": {"symbols": [8, 2, 2]},
        },
        share=0.1,
    ),
}
