from __future__ import annotations

import tomllib

from bayplan.cli.install_toml import changed_toml


class TestToml:
    def test_a_list_over_several_lines_is_replaced_whole(self) -> None:
        text = 'labels = [\n  "disk=ssd",\n]\nnode = "n1"\n'

        changed = changed_toml(text, {"labels": ["disk=hdd"]})

        assert tomllib.loads(changed) == {"labels": ["disk=hdd"], "node": "n1"}

    def test_what_only_looks_like_the_key_stays(self) -> None:
        text = 'managers = "a:1"\n# node = "old"\nnode-x = "y"\n'

        changed = changed_toml(text, {"node": "n1"})

        assert changed == f'{text}node = "n1"\n'

    def test_texts_with_quotes_and_odd_characters_come_back(self) -> None:
        value = 'a "b" \\ \x7f é'

        assert tomllib.loads(changed_toml("", {"id": value})) == {"id": value}
