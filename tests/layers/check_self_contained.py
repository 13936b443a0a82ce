#!/usr/bin/env python3
"""Checks that a file includes what declares the names it uses, itself or by headers of ours that it
includes. The presets compile several files together and precompile headers, which hides a missing
#include; this shows it without compiling every file alone."""

import collections
import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("services", "converter", "clients", "tests", "bench")
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)
# Comments, string and character literals (a raw string's first: it may hold quotes).
NOT_CODE = re.compile(r'R"(\w*)\(.*?\)\1"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'
                      r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])*'", re.DOTALL)
# Declared at the start of a line, so in namespace odmoe itself; nested names are indented.
DECLARED = re.compile(r"^(?:class|struct|enum class|union)\s+(?:\w+\([^)]*\)\s+)?(\w+)(?:\s+final)?"
                      r"\s*(?::[^;{]*)?\{|^using\s+(\w+)\s*=|^#define\s+(ODMOE_\w+)"
                      r"|^(?=\w)(?!using|return|namespace)[\w:<>,&* ]+[ &*>]([A-Z]\w*)\(",
                      re.MULTILINE)
NAME = re.compile(r"(?<![\w.>:])(?:odmoe::)?([A-Z]\w+)\b")
STANDARD_NAME = re.compile(r"(?<![\w:])(?:(?:std|absl)::\w+|u?int(?:8|16|32|64)_t)\b")

# Headers, any of which declares the names behind the colon. What a standard header happens to bring
# in of another does not count.
STANDARD = {}
for line in """
algorithm: std::sort std::stable_sort std::min_element std::max_element std::find_if std::copy_n
algorithm: std::fill std::fill_n std::any_of std::all_of std::none_of std::count_if std::lower_bound
algorithm: std::upper_bound std::clamp std::nth_element std::unique std::shuffle std::partial_sort
algorithm: std::rotate std::equal std::generate
array: std::array
atomic: std::atomic std::atomic_thread_fence std::memory_order_relaxed
charconv: std::from_chars std::to_chars
chrono: std::chrono
cmath: std::sqrt std::exp std::log std::pow std::fabs std::isnan std::isfinite std::round std::floor
cmath: std::ceil std::lround std::ldexp std::cos std::sin
cstdint: uint8_t uint16_t uint32_t uint64_t int8_t int16_t int32_t int64_t
cstdio: std::fprintf std::fopen std::fwrite std::snprintf std::printf
cstring: std::memcpy std::memset std::memcmp std::memmove std::strlen std::strerror
deque: std::deque
filesystem: std::filesystem
fstream: std::ifstream std::ofstream
functional: std::function std::hash std::greater std::less
iostream: std::cout std::cerr std::cin
limits: std::numeric_limits
list: std::list
map: std::map std::multimap
memory: std::unique_ptr std::shared_ptr std::make_unique std::make_shared std::weak_ptr
numeric: std::accumulate std::iota std::gcd std::inner_product
optional: std::optional std::nullopt
queue: std::priority_queue std::queue
random: std::mt19937 std::mt19937_64 std::uniform_int_distribution std::uniform_real_distribution
random: std::normal_distribution
set: std::set std::multiset
sstream: std::ostringstream std::istringstream std::stringstream
string: std::string std::to_string std::stoi
string_view: std::string_view
thread: std::thread std::this_thread
tuple: std::tuple std::make_tuple
unordered_map: std::unordered_map
unordered_set: std::unordered_set
variant: std::variant std::visit std::holds_alternative
vector: std::vector
absl/container/flat_hash_map.h: absl::flat_hash_map
absl/container/flat_hash_set.h: absl::flat_hash_set
absl/status/status.h absl/status/statusor.h: absl::Status absl::StatusCode absl::OkStatus
absl/status/status.h absl/status/statusor.h: absl::InvalidArgumentError absl::NotFoundError
absl/status/status.h absl/status/statusor.h: absl::DataLossError absl::InternalError
absl/status/status.h absl/status/statusor.h: absl::UnavailableError absl::ResourceExhaustedError
absl/status/status.h absl/status/statusor.h: absl::FailedPreconditionError absl::CancelledError
absl/status/status.h absl/status/statusor.h: absl::DeadlineExceededError
absl/status/statusor.h: absl::StatusOr
absl/strings/escaping.h: absl::CEscape absl::BytesToHexString absl::Base64Escape
absl/strings/match.h: absl::StartsWith absl::EndsWith absl::StrContains absl::EqualsIgnoreCase
absl/strings/numbers.h: absl::SimpleAtoi absl::SimpleAtod
absl/strings/str_cat.h: absl::StrCat absl::StrAppend absl::Hex
absl/strings/str_format.h: absl::StrFormat absl::StrAppendFormat absl::FPrintF
absl/strings/str_join.h: absl::StrJoin
absl/strings/str_split.h: absl::StrSplit
absl/strings/string_view.h: absl::string_view
absl/strings/strip.h: absl::StripPrefix absl::ConsumePrefix absl::StripSuffix
absl/synchronization/mutex.h: absl::Mutex absl::MutexLock absl::CondVar absl::Condition
absl/synchronization/mutex.h: absl::ReaderMutexLock
absl/synchronization/notification.h: absl::Notification
absl/time/clock.h: absl::Now absl::SleepFor
absl/time/time.h absl/time/clock.h: absl::Duration absl::Time absl::Seconds absl::Milliseconds
absl/time/time.h absl/time/clock.h: absl::Microseconds absl::InfiniteFuture absl::ToDoubleSeconds
absl/types/span.h: absl::Span absl::MakeSpan absl::MakeConstSpan
""".split("\n")[1:-1]:
    headers, names = line.split(": ")
    STANDARD.update(dict.fromkeys(names.split(), headers.split()))


def code_of(text):
    """The text without comments, literals and conditions; lines stay lines."""
    text = NOT_CODE.sub(lambda m: "\n" * m.group(0).count("\n"), text)
    return re.sub(r"^\s*#\s*(?:include|if|elif|ifdef|ifndef).*$", "", text, flags=re.MULTILINE)


class Tree:
    """The sources by name, and what each includes and declares."""

    def __init__(self):
        self.text = {}
        for folder in FOLDERS:
            for path in sorted((ROOT / folder).rglob("*")):
                if path.suffix in (".h", ".cc"):
                    self.text[path.relative_to(ROOT).as_posix()] = path.read_text()
        self.includes = {name: [m.group(1) for m in INCLUDE.finditer(text)]
                         for name, text in self.text.items()}
        self.code = {name: code_of(text) for name, text in self.text.items()}
        self.declares = {name: {next(filter(None, m.groups())) for m in DECLARED.finditer(code)}
                         for name, code in self.code.items()}
        self.homes = collections.defaultdict(set)
        for name, declared in self.declares.items():
            if name.endswith(".h"):
                for word in declared:
                    self.homes[word].add(name)

    @functools.lru_cache(maxsize=None)
    def reached(self, name):
        """All that including `name` brings in, through headers of ours; itself too."""
        seen = {name}
        left = [name]
        while left:
            for target in self.includes.get(left.pop(), []):
                if target not in seen:
                    seen.add(target)
                    left.append(target)
        return frozenset(seen)


def declared_within(word, code):
    """Whether the code declares the name somewhere, if only as a member or a parameter."""
    return re.search(rf"\b(?:class|struct|enum|using|typename) {word}\b"
                     rf"|[\w>&*\])](?<!\breturn)(?<!\belse)[ &*]+{word}\b *[({{,=;)]", code)


def problems(tree, name):
    """Yields what the file uses and does not include, each name once."""
    reached = tree.reached(name)
    code = tree.code[name]
    for word in sorted(set(NAME.findall(code)) & set(tree.homes)):
        homes = tree.homes[word]
        if homes & reached or word in tree.declares[name]:
            continue
        if any(declared_within(word, tree.code[other]) for other in reached if other in tree.code):
            continue
        yield f"{word} is of {' or '.join(sorted(homes))}"
    for word in sorted(set(STANDARD_NAME.findall(code)) & set(STANDARD)):
        if reached.isdisjoint(STANDARD[word]):
            yield f"{word} is of <{'> or <'.join(STANDARD[word])}>"


def main():
    tree = Tree()
    failures = 0
    for name in tree.text:
        for complaint in problems(tree, name):
            failures += 1
            print(f"{name}: {complaint}, which it does not include")
    print(f"{len(tree.text)} files, {failures} names without their #include")
    return 1 if failures or not tree.text else 0


if __name__ == "__main__":
    sys.exit(main())
