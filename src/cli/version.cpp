#include "octavo/version.h"

#include "checkpoint/json.h"
#include "cli/verb.h"
#include "core/format.h"

namespace octavo::cli {

int version(int argc, char** argv) {
  CLI::App app("Prints the version.", "octavo version");
  bool json = false;
  app.add_flag("--json", json, "as JSON");
  app.footer("Example:\n  octavo version --json");
  if (const auto code = parse(app, argc, argv)) return *code;
  if (json) {
    print_text("{}", to_text({{"version", OCTAVO_VERSION}}));
  } else {
    print_text("octavo {}\n", OCTAVO_VERSION);
  }
  return kOk;
}

}  // namespace octavo::cli
