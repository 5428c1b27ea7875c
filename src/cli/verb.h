// What the verbs of the program share: each is a function that gets the arguments behind its name and returns an exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string_view>

#include "octavo/status.h"

namespace octavo::cli {

inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;
inline constexpr int kInterrupted = 130;

struct Verb {
  std::string_view name;
  std::string_view summary;
  int (*run)(int argc, char** argv);  // argv[0] is the verb
};

int bench(int argc, char** argv);
int doctor(int argc, char** argv);
int quantize(int argc, char** argv);
int inspect(int argc, char** argv);
int kernels(int argc, char** argv);
int version(int argc, char** argv);

// Parses the command line; an exit code when the program is to end: --help was printed, or a usage error.
std::optional<int> parse(CLI::App& app, int argc, char** argv);

// Prints "octavo VERB: message" to stderr and returns the exit code.
int fail(const CLI::App& app, const Status& status);
int usage_error(const CLI::App& app, std::string_view message);

// Runs the program octavo-VERB that lies beside this one or on PATH. Returns only when there is none.
void run_external(std::string_view verb, char** argv);

}  // namespace octavo::cli
