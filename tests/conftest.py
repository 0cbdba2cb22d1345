"""What holds for every test: code of bundles is imported from a folder of this run alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import transformers.dynamic_module_utils
from transformers.utils import logging as transformers_logging


@pytest.fixture(scope="session", autouse=True)
def modeling_code_stays_in_a_scratch_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Other runs on this machine have bundles of their own; and the folder must not change once it is imported from."""
    with pytest.MonkeyPatch.context() as patch:
        scratch = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", scratch)
        transformers_logging.disable_progress_bar()
        yield
