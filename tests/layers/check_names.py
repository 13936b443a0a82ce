#!/usr/bin/env python3
"""Checks that no two headers define a type of one name: linked together they break the
one-definition rule, which no compiler reports."""

import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Definitions at the start of a line are in namespace odmoe itself; nested ones are indented.
TYPE = re.compile(r"^(?:class|struct|enum class|union)\s+(?:\w+\([^)]*\)\s+)?(\w+)(?:\s+final)?"
                  r"\s*(?::[^;{]*)?\{", re.MULTILINE)


def main():
    homes = collections.defaultdict(set)
    for folder in ("services", "converter", "clients"):
        for path in sorted((ROOT / folder).rglob("*.h")):
            for match in TYPE.finditer(path.read_text()):
                homes[match.group(1)].add(path.relative_to(ROOT).as_posix())
    twice = {name: paths for name, paths in homes.items() if len(paths) > 1}
    for name, paths in sorted(twice.items()):
        print(f"{name} is defined in {' and in '.join(sorted(paths))}")
    print(f"{len(homes)} types, {len(twice)} names twice")
    return 1 if twice or not homes else 0


if __name__ == "__main__":
    sys.exit(main())
