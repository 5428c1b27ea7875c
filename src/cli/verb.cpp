#include "cli/verb.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "core/format.h"

namespace octavo::cli {

std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    print_text("{}", app.help());
    return kOk;
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error.what());
  }
}

int fail(const CLI::App& app, const Status& status) {
  print_text(stderr, "{}: {}\n", app.get_name(), status.message());
  return status.code() == StatusCode::kCancelled ? kInterrupted : kFailed;
}

int usage_error(const CLI::App& app, std::string_view message) {
  print_text(stderr, "{}: {}\nSee '{} --help'.\n", app.get_name(), message, app.get_name());
  return kUsage;
}

void run_external(std::string_view verb, char** argv) {
  const std::string program = "octavo-" + std::string(verb);
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    const std::string beside = (self.parent_path() / program).string();
    ::execv(beside.c_str(), argv);
  }
  ::execvp(program.c_str(), argv);
}

}  // namespace octavo::cli
