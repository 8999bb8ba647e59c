"""YAML as people write it: each key once, numbers in decimal, true and false in these words."""

import re
from typing import Any

import yaml


class PlainLoader(yaml.SafeLoader):
    """A safe loader of plain YAML, for files that people write: ``yaml.load(text, PlainLoader)``.

    YAML 1.1 takes ``010`` for 8, ``1:30`` for 90 and ``no`` for false, and the last of two equal keys. Here all that is
    not plainly a number stays a text, which the key that holds it then refuses. What `yaml.safe_dump` wrote is for
    `yaml.safe_load`: it leaves a text such as ``123e45`` without quotes.
    """

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                said = f"the key {key.value!r} stands there a second time"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


for _tag, _form, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"-?(0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[-+]?[0-9]+)?", list("-0123456789")),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_form})$", re.IGNORECASE), _first)
