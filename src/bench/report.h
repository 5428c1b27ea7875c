// What was measured, as a table and as JSON.
#pragma once

#include <string>

#include "bench/measure.h"
#include "checkpoint/json.h"

namespace octavo::bench {

std::string table_head(DeviceType device);
std::string table_line(const Row& row);

// {kernel, scheme, op, activation, M, N, K, threads, us, spread, gbps, tops, limit, roof, roof_us, roof_fraction, …}; on
// CUDA "threads" is null.
Json to_json(const Row& row);

}  // namespace octavo::bench
