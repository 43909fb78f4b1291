"""What the tests cover, and the floor: ``make coverage`` prints both, and if it can rise."""

import io
import math
import sys

from coverage import Coverage


def describe(total, floor):
    """Return one line about the covered share of lines and the floor, both in percent."""
    line = f"The tests cover {total:.2f} % of the lines; the floor is {floor:g} %."
    if math.floor(total) > floor:
        line += (
            f" It can rise: set fail_under = {math.floor(total)} in pyproject.toml, and append "
            "the number to FLOORS in tests/packaging/test_coverage_floor.py."
        )
    return line


def main():
    """Read the data of the last run, and print the line."""
    measured = Coverage()
    measured.load()
    total = measured.report(file=io.StringIO())
    sys.stdout.write(describe(total, measured.get_option("report:fail_under")) + "\n")


if __name__ == "__main__":
    main()
