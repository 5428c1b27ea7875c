// The end of a tile of the weight-only kernel: a warpgroup's sums of 64 channels, which it holds with channels down and
// tokens across, are scaled, rounded, transposed into pieces of y in shared memory, and taken to y from there.
#pragma once

#include "gemm/cuda/float_w_fragment.cuh"
#include "gemm/cuda/float_w_sm90_arguments.h"
#include "gemm/cuda/sm90.cuh"
#include "gemm/cuda/sm90_float.cuh"

namespace octavo::sm90 {

inline constexpr int kPieceBytes = 64 * 128;

// Tokens of a piece, of all 64 channels of a warpgroup each: a box of as many rows of 128 bytes, or two of float32, channels
// 0 to 31 and the others. A whole one is written to y at once: asking for boxes of 8 tokens held up both warpgroups, since
// the one that asks for them multiplies too.
__host__ __device__ constexpr int piece_tokens(int element_bytes) { return 128 / element_bytes; }
// Of boxes that are written where a piece is not whole.
inline constexpr int kBoxTokens = 8;

// Barriers: kOwnChannels + w is warpgroup w's own, kBoth one of both.
enum FloatWMeeting { kOwnChannels = 1, kBoth = 3 };

// Scale and bias of a thread's two channels.
struct ChannelScaling {
  float scale[2], bias[2];

  // Sums of eight tokens as the product leaves them: two tokens of the upper channel, two of the lower.
  __device__ __forceinline__ float4 scaled(float4 v) const {
    return {v.x * scale[0] + bias[0], v.y * scale[0] + bias[0], v.z * scale[1] + bias[1], v.w * scale[1] + bias[1]};
  }
};

__device__ __forceinline__ std::uint32_t rounded(__half /*y*/, float first, float second) {
  return bits(__floats2half2_rn(first, second));
}
__device__ __forceinline__ std::uint32_t rounded(__nv_bfloat16 /*y*/, float first, float second) {
  return bits(__floats2bfloat162_rn(first, second));
}

// A warpgroup's way to y of elements Y, kPieces pieces at a time.
template <class Y, int kPieces>
class Output {
 public:
  static constexpr int kPiece = piece_tokens(sizeof(Y));
  static constexpr int kTokens = kPieces * kPiece;  // at a time

  // The first token that is stored, and the warpgroup's first channel.
  __device__ __forceinline__ Output(const FloatWArguments& a, const FloatWMaps& maps, std::uint32_t staging, int first,
                                    int n)
      : a_(a), maps_(maps), staging_(staging), first_(first), n_(n), thread_(static_cast<int>(threadIdx.x) % 128) {}

  // Until what was staged before has been read.
  __device__ __forceinline__ void begin() const {
    if (thread_ == 0) copies_read<0>();
    meet_own();
  }

  // Eight tokens' outputs, from `token` of those at a time on.
  __device__ __forceinline__ void put(int token, float4 v) const {
    const int lane = thread_ % 32, warp = thread_ / 32;
    if constexpr (sizeof(Y) == 4) {
      const int t = token + lane % 4 * 2, channel = warp * 16 + lane / 4;
      put_float(t, channel, v.x);
      put_float(t + 1, channel, v.y);
      put_float(t, channel + 8, v.z);
      put_float(t + 1, channel + 8, v.w);
    } else {
      store_transposed(at(token + lane % 8, warp * 16 + lane / 8 % 2 * 8), rounded(Y(), v.x, v.y), rounded(Y(), v.z, v.w));
    }
  }

  // So many tokens are staged, a multiple of kBoxTokens: m and on of y.
  __device__ __forceinline__ void end(int m, int tokens) const {
    fence_for_copy_engine();
    meet_own();
    if (!a_.y_by_copy_engine) return store_elements(m, tokens);
    if (thread_ != 0 || n_ >= a_.N) return;
    for (int token = max(first_ - m, 0); token < tokens && m + token < a_.M;) {
      const bool whole = token % kPiece == 0 && tokens - token >= kPiece;
      write(whole ? maps_.y : maps_.y_boxes, m, token);
      token += whole ? kPiece : kBoxTokens;
    }
    copies_commit();
  }

 private:
  __device__ __forceinline__ void meet_own() const { meet(kOwnChannels + static_cast<int>(threadIdx.x) / 128, 128); }

  // Where an element is staged. Chunks of 16 bytes are swizzled by the copy engine.
  __device__ __forceinline__ std::uint32_t at(int token, int channel) const {
    constexpr int kBytes = static_cast<int>(sizeof(Y)), kInRow = 128 / kBytes;
    const int row = channel / kInRow * kPiece + token % kPiece;
    return staging_ + token / kPiece * kPieceBytes + row * 128 + ((channel % kInRow * kBytes) ^ ((token & 7) << 4));
  }
  __device__ __forceinline__ void put_float(int token, int channel, float v) const {
    ptx::store_shared(at(token, channel), __float_as_uint(v));
  }

  __device__ __forceinline__ void write(const CUtensorMap& map, int m, int token) const {
    write_box(map, n_, m + token, at(token, 0));
    if (sizeof(Y) == 4 && n_ + 32 < a_.N) write_box(map, n_ + 32, m + token, at(token, 32));
  }

  // For rows that the copy engine cannot write.
  __device__ void store_elements(int m, int tokens) const {
    for (int i = thread_; i < tokens * 64; i += 128) {
      const int token = i / 64, channel = i % 64;
      if (m + token < first_ || m + token >= a_.M || n_ + channel >= a_.N) continue;
      Y* row = reinterpret_cast<Y*>(static_cast<char*>(a_.y) + (m + token) * a_.y_stride);
      if constexpr (sizeof(Y) == 4) {
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(row[n_ + channel]) : "r"(at(token, channel)) : "memory");
      } else {
        auto& bits = reinterpret_cast<std::uint16_t&>(row[n_ + channel]);
        asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits) : "r"(at(token, channel)) : "memory");
      }
    }
  }

  const FloatWArguments& a_;
  const FloatWMaps& maps_;
  std::uint32_t staging_;
  int first_, n_, thread_;
};

}  // namespace octavo::sm90
