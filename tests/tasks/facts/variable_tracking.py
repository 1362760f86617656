"""Assignments that copy one another."""

from tests.tasks.facts import Facts


def solve_variable_tracking(prompt: str, rendering: str) -> str:
    """Run the assignments, one after the other."""
    program, question = prompt.split("\nQ: what is " if rendering == "text" else " ? ")
    values: dict[str, str] = {}
    for assignment in program.strip(" ;").split(";"):
        variable, value = (side.strip() for side in assignment.split("="))
        assert variable not in values, "variables are different"
        values[variable] = value if value.isdigit() else values[value]
    return values[question.removesuffix("?\nA:").strip()]


FACTS = Facts(
    solve=solve_variable_tracking,
    few=(20_000, {"n_chains": (1, 1), "hops": (1, 1)}, r"^[^?]*"),
    n_marks=lambda placement, slices, prompt: 2 * (slices["hops"] + 1 if placement == "hint" else prompt.count("=")),
    questions={
        "symbols": ("?", r"\? (?P<key>[aL]\d+) (?P<answer>\d+)"),
        "text": ("\nQ:", r"\nQ: what is (?P<key>[a-z]+)\?\nA:(?P<answer> \d+)"),
    },
    pairs={"n_chains": (2, 3)},
)
