"""The examples in README and docs, run as a reader would: in order, in a directory with a model in `model/`.

Blocks fenced as bash and python are run; sh is for what needs a network, another directory, or minutes.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_examples_run(page, fp16, tmp_path):
    (tmp_path / "model").symlink_to(fp16, target_is_directory=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # Python blocks of a page are one program, run when the shell has made what they open.
    program = ""
    for language, text in blocks(page):
        if language == "python":
            program += text
        else:
            run(["bash", "-euo", "pipefail", "-c", text], tmp_path, environment)
    run([sys.executable, "-c", program], tmp_path, environment)


def run(command, directory, environment):
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command[-1]}\n{result.stdout}\n{result.stderr}"


def test_cpp_example_is_the_consumer_that_is_compiled():
    consumer = (ROOT / "tests" / "consumer" / "main.cpp").read_text(encoding="utf-8")
    examples = re.findall(r"^```cpp\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert examples
    lines = {line.strip() for line in consumer.splitlines()}
    for line in "".join(examples).splitlines():
        assert line.strip() in lines, line


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
