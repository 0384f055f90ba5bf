"""The generated pages are what the contract generates, and leave nothing out."""

from trainmaster_api.generate import reference
from trainmaster_api.reasons import (
    CONDITION_MEANINGS,
    FAILURE_RULES,
    REASON_MEANINGS,
    ConditionType,
    FailureClass,
    Reason,
)


def test_committed_pages_are_what_is_generated(capsys):
    assert reference.main(["--check"]) == 0, capsys.readouterr().err


def test_check_finds_an_old_page(tmp_path, capsys):
    assert reference.main([str(tmp_path)]) == 0
    (tmp_path / "api.md").write_text("old")
    assert reference.main([str(tmp_path), "--check"]) == 1
    assert "api.md" in capsys.readouterr().err


def test_every_word_has_a_meaning():
    assert set(REASON_MEANINGS) == set(Reason)
    assert set(CONDITION_MEANINGS) == set(ConditionType)
    assert set(FAILURE_RULES) == set(FailureClass)
    page = reference.reasons_page()
    for word in (*Reason, *ConditionType, *FailureClass):
        assert f"| `{word}` |" in page
