"""The schema for editors and the reference page, both made from the structs."""

from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from gateway.config import Chapter, Config, json_schema, load_config, render_reference
from gateway.config.reference import write_page

DOCS = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
BEGIN, END = "<!-- reference: begin (made by `python -m gateway.config`) -->\n", "<!-- reference: end -->\n"


def test_the_page_is_up_to_date() -> None:
    text = DOCS.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == render_reference().strip()


def test_the_example_on_the_page_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_CLIENT_SECRET", "s" * 32)
    example = DOCS.read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "portcullis.toml").write_text(example)
    assert load_config(tmp_path / "portcullis.toml").warnings == ()


def test_every_knob_has_a_description() -> None:
    silent = [
        f"{name}.{field}"
        for name, definition in json_schema()["$defs"].items()
        if name != "Config"
        for field, schema in definition["properties"].items()
        if not schema.get("description")
    ]
    assert silent == []


def test_every_section_and_knob_is_on_the_page() -> None:
    page = render_reference()
    for chapter in Chapter.__subclasses__():
        for field in get_type_hints(chapter):
            assert f"`{field}`" in page or f".{field}]" in page or f"[{field}]" in page, (chapter, field)


def test_the_schema_refuses_what_loading_refuses() -> None:
    schema = json_schema()
    server = schema["$defs"]["ServerConfig"]
    assert server["additionalProperties"] is False
    assert server["properties"]["backlog"]["minimum"] == 1
    assert schema["$ref"] == "#/$defs/Config"
    assert schema["$defs"]["IssuerConfig"]["required"] == ["issuer"]
    msgspec.json.encode(schema)


def test_defaults_of_the_structs_are_values_of_their_types() -> None:
    assert msgspec.convert(msgspec.to_builtins(Config()), Config) == Config()


def test_the_tables_are_written_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    write_page(page)
    assert page.read_text() == f"before\n{BEGIN}\n{render_reference()}\n{END}after\n"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        write_page(page)
    assert page.read_text() == "text\n"
