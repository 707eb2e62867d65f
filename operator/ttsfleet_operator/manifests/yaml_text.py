"""YAML for people: what `ttsfleet render` prints. (What is stored or hashed is rendered elsewhere.)"""

from __future__ import annotations

import yaml

from ttsfleet_operator.manifests.names import Manifest


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes texts of several lines as blocks, so that a person can read them."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump_yaml(document: Manifest) -> str:
    """YAML for people: insertion order, blocks for texts, no aliases."""
    return yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=118
    )
