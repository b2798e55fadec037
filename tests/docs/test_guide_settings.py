"""The settings on docs/use/guide.md are ones that a sidekick starts with: for Traefik, and for vulcand."""

import re
from pathlib import Path

from click.testing import CliRunner

from outrider.cli import main
from tests.support.terminal import blocks_of

PAGE = Path(__file__).parents[2] / "docs" / "use" / "guide.md"


def with_vulcand(text: str) -> str:
    """The file with the tables replaced that the page's section on vulcand names."""
    section = PAGE.read_text().split("## vulcand in place of Traefik\n", 1)[1].split("\n## ", 1)[0]
    instance, own = "\n".join(re.findall(r"^    (.*)$", section, re.MULTILINE)).split("[balancer]")
    kept = re.sub(r"^\[(balancer|traefik)\]\n(?:[^\[\n].*\n)*", "", text, flags=re.MULTILINE)
    return kept.replace("[instance]", instance.strip(), 1) + f"\n[balancer]{own}\n"


def test_the_file_and_its_variant_pass_the_check_of_a_start(tmp_path: Path) -> None:
    (lines,) = blocks_of(PAGE, "toml")
    traefik = "\n".join(lines) + "\n"
    vulcand = with_vulcand(traefik)
    assert "[traefik]" in traefik
    assert "[traefik]" not in vulcand
    assert 'balancer = "vulcand"' in vulcand

    for text in (traefik, vulcand):
        file = tmp_path / "a.toml"
        file.write_text(text)
        environment = {"OUTRIDER_INSTANCE_ID": "a", "OUTRIDER_INSTANCE_STATE_DIR": str(tmp_path / "a")}
        done = CliRunner().invoke(main, ["config", "check", "--config", str(file)], env=environment)

        assert done.exit_code == 0, done.output
        assert done.stdout.startswith("ok: a of e96281a6-"), done.output
