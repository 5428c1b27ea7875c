#define FMT_HEADER_ONLY  // here alone, so that nothing links with {fmt}
#include "core/format.h"

#include <fmt/format.h>

namespace octavo {

std::string vformat_text(fmt::string_view format, fmt::format_args args) { return fmt::vformat(format, args); }

void vprint_text(std::FILE* stream, fmt::string_view format, fmt::format_args args) { fmt::vprint(stream, format, args); }

}  // namespace octavo
