// a / b, rounded up.
#pragma once

namespace octavo {

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace octavo
