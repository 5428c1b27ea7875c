// a / b, rounded up.
#pragma once

#include <type_traits>

namespace octavo {

template <class Int>
constexpr Int ceil_div(Int a, std::type_identity_t<Int> b) {
  return (a + b - 1) / b;
}

}  // namespace octavo
