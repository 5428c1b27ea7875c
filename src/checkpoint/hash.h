#pragma once

#include <string>
#include <string_view>

namespace octavo {

// XXH3-128 in its canonical form, 32 hexadecimal digits.
std::string hash_hex(std::string_view data);

}  // namespace octavo
