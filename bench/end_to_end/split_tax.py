#!/usr/bin/env python3
"""Tokens per second of one process against three, over the same HTTP API.

One process is `odmoe serve`; three are expert storage, inference and gateway. Both are up at the
same time and are asked in turn, so that what else the machine does falls on both alike; the first
request to each warms it and is not counted. Figures are what the client sees: tokens of a streamed
completion
by the time from request to end.
"""
import argparse
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROMPT = "It was a dark night, and"


class Processes:
    """Programs started, each listening; stopped in reverse order at the end."""

    def __init__(self, bin_directory, log):
        self.bin = bin_directory
        self.log = log
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            process.wait(timeout=60)

    def start(self, program, *arguments):
        command = [os.path.join(self.bin, program), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.running.append(process)
        for line in process.stdout:
            if line.startswith("listening on "):
                return line.split()[-1], process
        sys.exit(f"{' '.join(command)} did not start; see {self.log.name}")


def complete(url, model, tokens):
    """Streams a completion; returns tokens per second and the text."""
    body = json.dumps({"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0,
                       "stream": True, "stream_options": {"include_usage": True}})
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    began = time.monotonic()
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        sys.exit(f"{url} answered {reply.status}: {reply.read().decode()}")
    text, generated = "", 0
    for line in reply:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        for choice in event["choices"]:
            text += choice["text"]
        if event.get("usage"):
            generated = event["usage"]["completion_tokens"]
    connection.close()
    return generated / (time.monotonic() - began), text


def peak_mib(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def describe_machine():
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                            capture_output=True, text=True, check=False).stdout.strip()
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        cpu = next((line.split(": ")[1].strip()
                    for line in cpuinfo if line.startswith("model name")),
                   platform.processor())
    return f"{cpu}, {len(os.sched_getaffinity(0))} CPUs, commit {commit}"


def convert(bin_directory, source, folder):
    model = os.path.join(folder, os.path.basename(os.path.normpath(source)))
    subprocess.run([os.path.join(bin_directory, "odmoe"), "convert", source, "-o", model,
                    "--quiet"],
                   check=True)
    return model


def start_both(processes, model, budget, folder):
    one_url, one = processes.start("odmoe", "serve", model, "--listen", "127.0.0.1:0",
                                   "--expert-budget", budget, "--quiet")
    root = os.path.dirname(os.path.abspath(model))
    store, store_process = processes.start(
        "odmoe-expert-storage", "--listen", "127.0.0.1:0", "--root", root, "--socket-dir", folder,
        "--model", os.path.abspath(model), "--expert-budget", budget)
    inference, inference_process = processes.start(
        "odmoe-inference", "--listen", "127.0.0.1:0", "--root", root, "--expert-store", store,
        "--model", os.path.abspath(model))
    three_url, gateway_process = processes.start(
        "odmoe-gateway", "--listen", "127.0.0.1:0", "--inference", inference)
    return {"one process": (one_url, [one]),
            "three processes": (three_url, [store_process, inference_process, gateway_process])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "release", "bin"))
    parser.add_argument("--model", help="model directory [tests/data/tiny-kimi, converted]")
    parser.add_argument("--expert-budget", default="100%")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--max-tax", type=float, help="fail where the tax is above so many percent")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="odmoe-bench-") as folder, \
            open(os.path.join(folder, "log"), "w", encoding="utf-8") as log, \
            Processes(arguments.bin, log) as processes:
        model = arguments.model or convert(
            arguments.bin, os.path.join(ROOT, "tests", "data", "tiny-kimi"), folder)
        name = os.path.basename(os.path.normpath(model))
        sides = start_both(processes, model, arguments.expert_budget, folder)
        figures = {side: [] for side in sides}
        texts = set()
        for repeat in range(arguments.repeats + 1):
            # Who goes first changes, so that neither always runs on the other's warm machine.
            for side in list(sides)[::1 if repeat % 2 else -1]:
                rate, text = complete(sides[side][0], name, arguments.tokens)
                texts.add(text)
                if repeat > 0:
                    figures[side].append(rate)
        if len(texts) != 1:
            sys.exit("the two sides did not generate the same text")
        print(f"{describe_machine()}\n{name}, {arguments.tokens} tokens, expert budget "
              f"{arguments.expert_budget}, {arguments.repeats} runs a side\n")
        print(f"{'':16} {'median tok/s':>12} {'best':>8} {'worst':>8} {'peak MiB':>9}")
        for side, rates in figures.items():
            memory = sum(peak_mib(process) for process in sides[side][1])
            print(f"{side:16} {statistics.median(rates):12.1f} {max(rates):8.1f} "
                  f"{min(rates):8.1f} {memory:9.0f}")
        one, three = (statistics.median(figures[side]) for side in sides)
        tax = 100 * (1 - three / one)
        print(f"\nratio {three / one:.3f}: the split costs {tax:.1f} %")
        if arguments.max_tax is not None and tax > arguments.max_tax:
            sys.exit(1)


if __name__ == "__main__":
    main()
