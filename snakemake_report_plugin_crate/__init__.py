"""Snakemake report plugin of `make crate` (`snakemake --reporter crate`): a finished study as a Provenance Run Crate.

It writes data/STUDY/crate.zip: ro-crate-metadata.json, the sources of the workflow, and the results, which are the
inputs and outputs of all jobs up to LARGEST bytes. Weights and larger files are described by size and SHA-256 only. The
metadata have the jobs with their times, inputs and outputs, as Snakemake recorded them, and the packages with their
licences as SPDX expressions.

Profile: https://w3id.org/ro/wfrun/provenance/0.5, on RO-Crate 1.1.
"""

import hashlib
import importlib.metadata
import json
import mimetypes
import re
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import yaml
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from snakemake_interface_report_plugins.reporter import ReporterBase

from emergent_misalignment.files import replacing

METADATA = "ro-crate-metadata.json"
WORKFLOW = "Snakefile"
SOURCES = (
    *(
        WORKFLOW,
        "rules/**/*",
        "emergent_misalignment/**/*",
        "notebooks/**/*",
        "config/**/*",
        "profiles/**/*",
        "paper/*",
    ),
    *("pyproject.toml", "requirements.lock", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"),
    "matplotlibrc",
)
LARGEST = 10_000_000
WEIGHTS = (".safetensors", ".gguf")
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
SNAKEMAKE, LANGUAGE = "https://snakemake.github.io", "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
# Classifiers of packages that name one licence of SPDX. "BSD License" is several.
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Words that are in the text of one licence only, but for those of BSD, of which one has a clause more.
TEXTS = {
    "Apache-2.0": "apache license version 2.0",
    "BSD-2-Clause": "redistributions in binary form must reproduce",
    "BSD-3-Clause": "neither the name",
    "MIT": "permission is hereby granted, free of charge",
}


class Reporter(ReporterBase):
    def render(self) -> None:
        study = self.dag.workflow.config["study"]
        archive = Path(f"data/{study}/crate.zip")
        jobs = sorted(self.jobs, key=lambda each: (each.starttime, each.rule))
        crate = Crate(study, [str(each.path) for each in self.configfiles])
        for job in jobs:
            crate.add_job(job)
        crate.write(archive)
        print(f"{archive}: {len(jobs)} jobs, {len(crate.files)} files")


class Crate:
    """The entities of a study's crate, and the files that go into the archive."""

    def __init__(self, study: str, configs: list[str]):
        self.study = study
        self.files: dict[str, Path] = {}  # those in the archive, by their ids
        self.described: dict[str, dict] = {}  # entities of other files and folders, by their ids
        self.tools: dict[str, dict] = {}
        self.steps: dict[str, dict] = {}
        self.jobs: list[dict] = []
        self.controls: list[dict] = []
        for path in (path for pattern in SOURCES for path in Path().glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                self.file(path)
        self.configs = [self.file(path) for path in configs]

    def file(self, path: str | Path) -> dict:
        """A reference to a file or folder; an entity is added if there is none."""
        path = Path(path)
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        name = quote(path.as_posix())
        if name in self.files or f"#{name}" in self.described:
            return _reference(name if name in self.files else f"#{name}")
        inside = path.is_file() and not path.is_absolute() and ".." not in path.parts
        if inside and path.suffix not in WEIGHTS and path.stat().st_size <= LARGEST:
            self.files[name] = path
            return _reference(name)
        about = {"contentSize": path.stat().st_size, "sha256": _digest(path)} if path.is_file() else {}
        self.described[f"#{name}"] = {"@id": f"#{name}", "@type": "CreativeWork", "name": path.as_posix(), **about}
        return _reference(f"#{name}")

    def add_job(self, record) -> None:
        """Add a job as Snakemake recorded it, and its rule as a step of the workflow."""
        rule, job, number = record.rule, record.job, len(self.jobs) + 1
        if rule not in self.steps:
            tool = self._tool(job)
            self.steps[rule] = {
                "@id": f"#step/{rule}",
                "@type": "HowToStep",
                "name": rule,
                "position": len(self.steps) + 1,
                "workExample": _reference(tool),
            }
        wildcards = ", ".join(f"{name} {value}" for name, value in job.wildcards.items())
        action = {
            "@id": f"#job/{number}",
            "@type": "CreateAction",
            "name": f"{rule} ({wildcards})" if wildcards else rule,
            "instrument": self.steps[rule]["workExample"],
            "startTime": _time(record.starttime),
            "endTime": _time(record.endtime),
            "object": [self.file(path) for path in dict.fromkeys(map(str, job.input))],
            "result": [self.file(path) for path in dict.fromkeys(map(str, record.output))],
        }
        self.jobs.append(action)
        self.controls.append(
            {
                "@id": f"#control/{number}",
                "@type": "ControlAction",
                "name": f"Run {action['name']}",
                "instrument": _reference(f"#step/{rule}"),
                "object": _reference(action["@id"]),
            }
        )

    def _tool(self, job) -> str:
        """The id of what a job's rule runs: its notebook, or else its script."""
        path = job.input.get("notebook") or f"rules/{job.rule.script}"
        name = self.file(path)["@id"]
        self.tools[name] = {"@type": ["File", "SoftwareSourceCode"]}
        return name

    def entities(self) -> Iterator[dict]:
        """All entities, in an order that is the same for the same jobs."""
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
        citation = yaml.safe_load(Path("CITATION.cff").read_text(encoding="utf-8"))
        license = _reference(f"https://spdx.org/licenses/{project['license']}")
        packages = list(installed())
        start, end = self.jobs[0]["startTime"], max(each["endTime"] for each in self.jobs)
        yield {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": _reference("./"),
            "conformsTo": _references(["https://w3id.org/ro/crate/1.1", [*PROFILES][-1]]),
        }
        yield {
            "@id": "./",
            "@type": "Dataset",
            "name": f"Emergent misalignment: the study {self.study}",
            "description": " ".join(citation["abstract"].split()),
            "datePublished": end,
            "license": license,
            "author": _reference("#authors"),
            "citation": _reference(f"https://doi.org/{citation['references'][0]['doi']}"),
            "conformsTo": _references(PROFILES),
            "mainEntity": _reference(WORKFLOW),
            "hasPart": _references(self.files),
            "mentions": _references(["#run", "#engine-run", *(each["@id"] for each in self.jobs)]),
        }
        yield {
            "@id": WORKFLOW,
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": citation["title"],
            "version": project["version"],
            "url": SNAKEMAKE,
            "license": license,
            "author": _reference("#authors"),
            "programmingLanguage": _reference(LANGUAGE),
            "hasPart": _references(self.tools),
            "step": _references(each["@id"] for each in self.steps.values()),
            "softwareRequirements": _references(each["@id"] for each in packages),
        }
        engine = {"name": "Snakemake", "url": SNAKEMAKE, "version": importlib.metadata.version("snakemake")}
        yield {"@id": LANGUAGE, "@type": "ComputerLanguage", **engine}
        yield {"@id": SNAKEMAKE, "@type": "SoftwareApplication", **engine}
        yield {"@id": "#authors", "@type": "Organization", "name": citation["authors"][0]["name"]}
        yield {
            "@id": f"https://doi.org/{citation['references'][0]['doi']}",
            "@type": "ScholarlyArticle",
            "name": citation["references"][0]["title"],
        }
        yield {**license, "@type": "CreativeWork", "name": project["license"]}
        for profile, name in PROFILES.items():
            yield {"@id": profile, "@type": "CreativeWork", "name": name, "version": profile.rpartition("/")[2]}
        results = dict.fromkeys(each["@id"] for job in self.jobs for each in job["result"])
        run = {"startTime": start, "endTime": end}
        yield {
            "@id": "#run",
            "@type": "CreateAction",
            "name": f"The study {self.study}",
            "instrument": _reference(WORKFLOW),
            "object": self.configs,
            "result": _references(results),
            **run,
        }
        yield {
            "@id": "#engine-run",
            "@type": "OrganizeAction",
            "name": f"Snakemake's run of the study {self.study}",
            "instrument": _reference(SNAKEMAKE),
            "object": _references(each["@id"] for each in self.controls),
            "result": _reference("#run"),
            **run,
        }
        yield from (*self.steps.values(), *self.controls, *self.jobs, *packages)
        for name, path in self.files.items():
            if name != WORKFLOW:
                about = {"name": path.as_posix(), "contentSize": path.stat().st_size, "sha256": _digest(path)}
                about |= {"encodingFormat": mimetypes.guess_type(name)[0] or "application/octet-stream"}
                about |= {"version": project["version"]} if name in self.tools else {}
                yield {"@id": name, "@type": "File", **about, **self.tools.get(name, {})}
        yield from self.described.values()

    def write(self, archive: Path) -> None:
        """Write the archive."""
        metadata = {"@context": CONTEXT, "@graph": list(self.entities())}
        with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(METADATA, json.dumps(metadata, indent=1, ensure_ascii=False))
            for path in self.files.values():
                file.write(path, path.as_posix())


def installed() -> Iterator[dict]:
    """The packages of requirements.lock that are installed, as entities with version and licence."""
    for line in Path("requirements.lock").read_text(encoding="utf-8").splitlines():
        name = line.partition("==")[0]
        with suppress(importlib.metadata.PackageNotFoundError):
            distribution = importlib.metadata.distribution(name)
            yield {
                "@id": f"https://pypi.org/project/{name}/{quote(distribution.version)}/",
                "@type": "SoftwareApplication",
                "name": name,
                "url": f"https://pypi.org/project/{name}/",
                "version": distribution.version,
                "license": spdx(distribution),
            }


def spdx(distribution: importlib.metadata.Distribution) -> str:
    """A package's licence as an expression of SPDX; NOASSERTION if neither its metadata nor its licence say which."""
    metadata = distribution.metadata
    for field in ("License-Expression", "License"):
        with suppress(InvalidLicenseExpression):
            return canonicalize_license_expression((metadata[field] or "").strip())
    names = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier", []) if each.startswith("License ::")]
    if len(names) == 1 and names[0] in CLASSIFIERS:
        return CLASSIFIERS[names[0]]
    files = [path.locate() for path in distribution.files or [] if re.match(r"(LICEN[CS]E|COPYING)", path.name, re.I)]
    texts = [metadata["License"] or "", *(path.read_text("utf-8", "replace") for path in files if path.is_file())]
    text = " ".join(" ".join(texts).split()).lower()
    found = [name for name, words in TEXTS.items() if words in text]
    found = [name for name in found if not (name == "BSD-2-Clause" and "BSD-3-Clause" in found)]
    return found[0] if len(found) == 1 else "NOASSERTION"


def _reference(name: str) -> dict:
    return {"@id": name}


def _references(names: Iterable[str]) -> list[dict]:
    return [_reference(name) for name in names]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
