#include <algorithm>
#include <cstdint>

#include "core/ceil_div.h"
#include "core/cuda_launch.cuh"
#include "gemm/alignment.h"
#include "gemm/cuda/s8_w8_sm90.h"
#include "gemm/cuda/s8_w8_sm90_kernel.cuh"
#include "gemm/cuda/tensor_map.h"

namespace octavo {
namespace {

using sm90::S8W8Arguments;
using sm90::S8W8Shared;

// A tile of y that there is a kernel for: 64 `rows` times `columns`.
struct Tile {
  int rows;
  int columns;
  void (*launch)(const Arguments& a, S8W8Arguments arguments);
};

template <int kRows, int kColumns>
void launch_tile(const Arguments& a, S8W8Arguments s) {
  using Shared = S8W8Shared<kRows, kColumns>;
  const cuda::Gpu* gpu = *cuda::gpu(a.x.device);
  const bool biased = s.epilogue.bias != nullptr;
  s.group_m = 16;
  s.x_box = std::min(64 * kRows, (s.M + 7) / 8 * 8);
  s.stages = 1;
  while (s.stages < sm90::kMaxStages && Shared::bytes(s.x_box, s.stages + 1, biased) <= gpu->max_shared_memory) ++s.stages;
  const int element_bytes = bits_of(a.y.dtype) / 8;
  const int row_bytes = element_bytes == 2 ? sm90::Pieces<kColumns, 2>::kRowBytes : sm90::Pieces<kColumns, 4>::kRowBytes;
  CUtensorMap x = {}, w = {}, y = {};
  const auto map = [&](const MatrixView& m, int rows, CUtensorMap& to) {
    const cuda::Box box = {sm90::kBlockK, rows, sm90::kBlockK, 1, kRows == 1 ? 128 : 256};
    return cuda::map_tensor(m.data, 1, m.rows, s.K, m.stride, box, to);
  };
  if (!map(a.x, s.x_box, x) || !map(a.w.q, kColumns, w)) return;
  if (s.y_by_copy_engine &&
      !cuda::map_tensor(a.y.data, element_bytes, s.M, s.N, a.y.stride, {row_bytes / element_bytes, 64, row_bytes}, y)) {
    return;
  }
  const int tiles = ceil_div(s.M, 64 * kRows) * ceil_div(s.N, kColumns);
  cuda::launch(sm90::s8_w8_kernel<kRows, kColumns>, dim3(static_cast<unsigned>(std::min(tiles, gpu->num_sms))),
               dim3(sm90::kWarpgroup * (kRows + 1)), static_cast<std::size_t>(Shared::bytes(s.x_box, s.stages, biased)),
               a.stream, {}, s, x, w, y);
}

constexpr Tile kTiles[] = {
    {1, 32, launch_tile<1, 32>},   {1, 64, launch_tile<1, 64>},   {1, 128, launch_tile<1, 128>},
    {2, 64, launch_tile<2, 64>},   {2, 128, launch_tile<2, 128>}, {2, 192, launch_tile<2, 192>},
    {2, 224, launch_tile<2, 224>}, {2, 256, launch_tile<2, 256>},
};

// The tile that takes the least time, in cycles of an SM: so many rounds of tiles, each as long as the products of its
// blocks or their copies, whichever takes longer, and its end. Fitted to every tile's times on an H200, for 11 numbers of
// rows and six layers: what it picks is 0.3 % slower than the best in the mean, 8 % at most.
const Tile& choose(int M, int N, int K, int num_sms) {
  constexpr double kProductsOfRow = 2.0;  // cycles of a block, of 64 rows and a column
  constexpr double kCopiedBytes = 45;     // a cycle
  constexpr double kEndOfColumn = 6;      // cycles
  const auto cycles = [&](const Tile& tile) {
    const int rounds = ceil_div(ceil_div(M, 64 * tile.rows) * ceil_div(N, tile.columns), num_sms);
    const double products = kProductsOfRow * tile.rows * tile.columns;
    const double copies = (std::min(64 * tile.rows, M) + tile.columns) * sm90::kBlockK / kCopiedBytes;
    return rounds * (ceil_div(K, sm90::kBlockK) * std::max(products, copies) + kEndOfColumn * tile.columns);
  };
  return *std::min_element(std::begin(kTiles), std::end(kTiles),
                           [&](const Tile& a, const Tile& b) { return cycles(a) < cycles(b); });
}

}  // namespace

void cuda_s8_w8_sm90(const Arguments& a, Parallel& /*parallel*/) {
  S8W8Arguments s = {};
  s.M = static_cast<int>(a.x.rows);
  s.N = static_cast<int>(a.w.q.rows);
  s.K = static_cast<int>(a.x.cols);
  s.y = a.y.data;
  s.y_stride = a.y.stride;
  s.y_dtype = a.y.dtype;
  // The engine writes 16 bytes at a time, also where a row ends within them.
  s.y_by_copy_engine = alignment_of(a.y) == 16 && row_bytes(a.y.dtype, s.N) % 16 == 0;
  s.constant_w = a.constant_w;
  s.epilogue = cuda::epilogue_of(a);
  choose(s.M, s.N, s.K, (*cuda::gpu(a.x.device))->num_sms).launch(a, s);
}

}  // namespace octavo
