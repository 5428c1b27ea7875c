// Any text: refused, or a valid scheme that prints to what it was parsed from.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "octavo/scheme.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto scheme = octavo::parse_scheme({reinterpret_cast<const char*>(data), size});
  if (!scheme.ok()) return 0;
  const auto again = octavo::parse_scheme(octavo::to_string(*scheme));
  if (!octavo::validate(*scheme).ok() || !again.ok() || !(*again == *scheme)) std::abort();
  return 0;
}
