"""What the tests of text-to-SQL share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def embedded_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one store to the whole session, so that the embedded database is made once."""
    return tmp_path_factory.mktemp("embedded_store")
