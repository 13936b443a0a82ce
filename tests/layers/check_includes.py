#!/usr/bin/env python3
"""Checks every #include of the tree against the table in services/README.md."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')

CORE = ["services/core/" + part for part in
        ("base", "io", "tensor", "experts", "formats", "generation", "jobs", "kernels", "http")]
SERVICES = ["expert_storage", "inference", "conversion", "gateway"]

# Folder -> folders of ours it may include. The longest folder that holds a file decides.
ALLOWED = {
    "services/core/base": CORE[:1],
    "services/core/io": CORE[:2],
    "services/core/tensor": CORE[:1] + ["services/core/tensor"],
    "services/core/experts": CORE[:4],
    "services/core/formats": CORE[:5],
    "services/core/generation": ["services/core/base", "services/core/generation"],
    "services/core/kernels": CORE[:1] + ["services/core/tensor", "services/core/experts",
                                         "services/core/generation",
                                         "services/core/kernels"],
    "services/core/http": ["services/core/base", "services/core/http"],
    "services/core/jobs": ["services/core/base", "services/core/jobs"],
    "services/core/rpc": ["services/core/base", "services/core/rpc"],
    "services/core/codec": CORE + ["services/core/rpc", "services/core/codec"],
    "converter": CORE + ["converter"],
    "services/expert_storage": CORE + ["services/expert_storage"],
    "services/inference": CORE + ["services/inference"],
    "services/conversion": CORE + ["services/conversion", "converter"],
    "services/gateway": CORE + ["services/gateway"],
    "clients/cpp": CORE + ["services/core/rpc", "services/core/codec", "clients/cpp"],
    "clients": ["services", "converter", "clients"],
}
for name in SERVICES:
    folder = f"services/{name}/service"
    ALLOWED[folder] = ALLOWED[f"services/{name}"] + ["services/core/rpc", "services/core/codec"]

PROTO = re.compile(r"^(grpc|grpcpp|google/(protobuf|rpc)|odmoe)/")
PROTO_FOLDERS = (["services/core/rpc", "services/core/codec", "clients"] +
                 [f"services/{n}/service" for n in SERVICES])
LOG_FOLDERS = ["clients"] + [f"services/{n}/service" for n in SERVICES]


def below(path, folder):
    return path == folder or path.startswith(folder + "/")


def problems(path):
    """Yields (line number, complaint) for one source file."""
    name = path.relative_to(ROOT).as_posix()
    is_main = path.name == "main.cc"
    homes = [folder for folder in ALLOWED if below(name, folder)]
    allowed = ALLOWED[max(homes, key=len)] if homes else []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(1)
        if target.startswith(("tests/", "bench/")):
            yield number, f"{target}: product code includes tests or benchmarks"
        if target.startswith(("services/", "converter/", "clients/")) and not is_main:
            if not any(below(target, folder) for folder in allowed):
                yield number, f"{target}: not below {', '.join(allowed)}"
        if PROTO.match(target) and not is_main and not any(below(name, f) for f in PROTO_FOLDERS):
            yield number, (f"{target}: gRPC and protos stay in service/, clients/, "
                           "core/{rpc,codec}, main.cc")
        if target.startswith("spdlog/") and not is_main:
            if not any(below(name, f) for f in LOG_FOLDERS):
                yield number, f"{target}: spdlog stays in service/ and main.cc, Status elsewhere"


def main():
    failures = 0
    files = 0
    for folder in ("services", "converter", "clients"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in (".h", ".cc"):
                continue
            files += 1
            for number, complaint in problems(path):
                failures += 1
                print(f"{path.relative_to(ROOT)}:{number}: {complaint}")
    print(f"{files} files, {failures} includes against services/README.md")
    return 1 if failures or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
