// octavo VERB …: verbs are functions here, or programs octavo-VERB, like git's.
#include <array>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>

#include "cli/verb.h"
#include "core/format.h"

namespace octavo::cli {
namespace {

constexpr std::array kVerbs = {
    Verb{"quantize", "quantize a model's weights into a new directory", quantize},
    Verb{"inspect", "list the tensors, schemes and sizes of a model or file", inspect},
    Verb{"kernels", "list the kernels, and why some cannot run here", kernels},
    Verb{"bench", "time products beside what limits them: memory and multiply units", bench},
    Verb{"doctor", "say what this machine has, what octavo uses of it, and what is wrong", doctor},
    Verb{"version", "print the version", version},
};

void print_help(std::FILE* out) {
  print_text(out,
             "octavo makes large language models smaller and faster: 8- and 4-bit weights and activations.\n\n"
             "Usage: octavo VERB [OPTIONS] [ARGUMENTS]\n\nVerbs:\n");
  for (const Verb& verb : kVerbs) print_text(out, "  {:10} {}\n", verb.name, verb.summary);
  print_text(out,
             "\nAny other VERB runs the program octavo-VERB, if there is one beside octavo or on PATH.\n"
             "'octavo VERB --help' describes a verb.\n\n"
             "Example:\n  octavo quantize ./SmolLM2-135M ./SmolLM2-135M-w4a16 --scheme w4a16-g64\n");
}

int run(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    print_help(stdout);
    return kOk;
  }
  if (name == "--version") return version(1, argv);
  if (name.empty()) {
    print_help(stderr);
    return kUsage;
  }
  for (const Verb& verb : kVerbs) {
    if (verb.name == name) return verb.run(argc - 1, argv + 1);
  }
  const bool is_verb = !name.starts_with('-') && name.find('/') == std::string_view::npos;
  if (is_verb) run_external(name, argv + 1);
  print_text(stderr, "octavo: '{}' is not a verb{}; verbs are", name,
             is_verb ? format_text(", and there is no program octavo-{}", name) : "");
  std::string_view separator = " ";
  for (const Verb& verb : kVerbs) {
    print_text(stderr, "{}{}", separator, verb.name);
    separator = ", ";
  }
  print_text(stderr, "\nSee 'octavo --help'.\n");
  return kUsage;
}

}  // namespace
}  // namespace octavo::cli

int main(int argc, char** argv) {
  try {
    return octavo::cli::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("octavo: out of memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "octavo: internal error: %s\n", error.what());
  }
  return octavo::cli::kFailed;
}
