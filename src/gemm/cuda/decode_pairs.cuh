// x by the copy engine, for two CTAs at once. See decode.cuh.
//
// Of many tokens every CTA reads as much x from the second-level cache as weights, and that cache has not the speed for
// both. So CTAs come in pairs, clusters of two. Each asks for x of every second token, which the cache then sends to both. x
// comes in pieces, some blocks of all tokens, in order and with a barrier each: warps multiply the first ones while the last
// are on their way. (The copy engine takes what it is asked for in turn, so that x waits behind weights. Where there is
// little x, threads are faster.)
#pragma once

#include <cstdint>

#include "gemm/cuda/decode_kind.cuh"
#include "gemm/cuda/decode_products.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::decode {

// What can be done before x may be read, by one warp: the barriers of pieces, and the zeros past K.
template <class Kind>
__device__ __forceinline__ void begin_pieces(const DecodeArguments& a, const Shared<Kind>& shared, std::uint8_t* memory,
                                             int lane) {
  const std::uint32_t barriers = ptx::shared_address(memory) + shared.x_barriers;
  if (sm90::elected()) {
    for (int i = 0; i < Kind::pieces(a.blocks); ++i) sm90::barrier_init(barriers + i * 8, 1);
  }
  const int row_bytes = a.K * static_cast<int>(sizeof(typename Kind::X)), all_bytes = a.blocks * Kind::kBlockBytesOfX;
  for (int m = 0; m < a.M; ++m) {
    std::uint8_t* token = memory + shared.x + m * Kind::x_pitch(a.blocks);
    for (int i = row_bytes / 16 * 16 + lane * 16; i < all_bytes; i += 32 * 16) {
      *reinterpret_cast<uint4*>(token + i) = {0, 0, 0, 0};
    }
  }
  __syncwarp();
}

// Asks for the CTA's share of all pieces, by one warp, when both CTAs have begun. A CTA stays until it has multiplied them
// all, so that it is still there when the last has come.
template <class Kind>
__device__ __forceinline__ void ask_for_pieces(const DecodeArguments& a, const Shared<Kind>& shared, std::uint8_t* memory,
                                               int lane) {
  constexpr int kPieceBytes = Kind::kPieceBlocks * Kind::kBlockBytesOfX;
  const int row_bytes = a.K * static_cast<int>(sizeof(typename Kind::X)), whole = row_bytes / 16 * 16;
  const int pitch = Kind::x_pitch(a.blocks), pieces = Kind::pieces(a.blocks);
  const auto* x = static_cast<const std::uint8_t*>(a.x);
  if (whole < row_bytes && lane < a.M) {
    *reinterpret_cast<uint4*>(memory + shared.x + lane * pitch + whole) =
        part_of(x + lane * a.x_stride + whole, row_bytes - whole);
  }
  __syncwarp();
  if (sm90::elected()) {
    const int rank = static_cast<int>(sm90::cluster_rank());
    std::uint32_t barrier = ptx::shared_address(memory) + shared.x_barriers;
    const std::uint32_t to = ptx::shared_address(memory) + shared.x;
    for (int piece = 0; piece < pieces; ++piece, barrier += 8) {
      const int begin = piece * kPieceBytes, bytes = min(whole - begin, kPieceBytes);
      sm90::barrier_expect(barrier, a.M * bytes);
      if (bytes == 0) break;  // of the last one, which threads have written
      for (int m = (piece * a.M + rank) % 2; m < a.M; m += 2) {
        sm90::copy_to_both(to + m * pitch + begin, x + m * a.x_stride + begin, bytes, barrier);
      }
    }
  }
  __syncwarp();
}

}  // namespace octavo::decode
