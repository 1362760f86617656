"""Sums, polynomials and chains of signs, read from their text."""

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
}
