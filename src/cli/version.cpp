#include "octavo/version.h"

#include <fmt/format.h>

#include "checkpoint/json.h"
#include "cli/verb.h"

namespace octavo::cli {

int version(int argc, char** argv) {
  CLI::App app("Prints the version.", "octavo version");
  bool json = false;
  app.add_flag("--json", json, "as JSON");
  app.footer("Example:\n  octavo version --json");
  if (const auto code = parse(app, argc, argv)) return *code;
  if (json) {
    fmt::print("{}", to_text({{"version", OCTAVO_VERSION}}));
  } else {
    fmt::print("octavo {}\n", OCTAVO_VERSION);
  }
  return kOk;
}

}  // namespace octavo::cli
