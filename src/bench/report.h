// What was measured, as a table and as JSON.
#pragma once

#include <string>

#include "bench/measure.h"
#include "checkpoint/json.h"

namespace octavo::bench {

std::string table_head();
std::string table_line(const Row& row);

// {kernel, scheme, op, activation, M, N, K, threads, us, spread, gbps, tops, roof, roof_fraction, …}
Json to_json(const Row& row);

}  // namespace octavo::bench
