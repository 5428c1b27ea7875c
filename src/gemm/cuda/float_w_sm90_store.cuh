// The end of a tile of the weight-only kernel: a warpgroup's sums of 64 channels, which it holds with channels down and
// tokens across, are scaled, rounded, transposed into pieces of y in shared memory, and taken to y from there.
#pragma once

#include "gemm/cuda/float_w_sm90_arguments.h"
#include "gemm/cuda/sm90.cuh"
#include "gemm/cuda/sm90_float.cuh"

namespace octavo::sm90 {

inline constexpr int kPieceBytes = 64 * 128;

// Tokens of a piece, of all 64 channels of a warpgroup each. It consists of boxes of kBoxTokens tokens and 128 bytes a row:
// one after the other of 16-bit elements, by twos of fp32.
__host__ __device__ constexpr int piece_tokens(int element_bytes) { return element_bytes == 2 ? 64 : 32; }
inline constexpr int kBoxTokens = 8;
inline constexpr int kBoxBytes = kBoxTokens * 128;

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

// A warpgroup's way to y, by way of F::kPieces pieces, used in turn.
template <class F, bool kFloat32>
class Output {
 public:
  static constexpr int kElementBytes = kFloat32 ? 4 : 2;
  static constexpr int kTokens = piece_tokens(kElementBytes);

  __device__ Output(const FloatWArguments& a, const CUtensorMap& y, std::uint32_t staging)
      : a_(a), y_(y), staging_(staging), thread_(static_cast<int>(threadIdx.x) % 128) {}

  // The warpgroup's first channel, and the first token that is stored.
  __device__ __forceinline__ void at(int n, int first) { n_ = n, first_ = first; }

  // Until the place of the next piece is free.
  __device__ __forceinline__ void begin() {
    if (thread_ == 0) copies_read<F::kPieces - 1>();
    meet(kOwnChannels + warpgroup(), 128);
  }

  // Eight tokens' outputs, from the piece's token on.
  __device__ __forceinline__ void put(int token, float4 v) {
    const std::uint32_t piece = staging_ + turn_ * kPieceBytes;
    const int lane = thread_ % 32, warp = thread_ / 32;
    if constexpr (kFloat32) {
      const int t = token + lane % 4 * 2, channel = warp * 16 + lane / 4;
      put_float(piece, t, channel, v.x);
      put_float(piece, t + 1, channel, v.y);
      put_float(piece, t, channel + 8, v.z);
      put_float(piece, t + 1, channel + 8, v.w);
    } else {
      const int row = token + lane % 8, chunk = warp * 2 + lane / 8 % 2;
      store_transposed(piece + row * 128 + ((chunk ^ (row & 7)) << 4), rounded(v.x, v.y), rounded(v.z, v.w));
    }
  }

  // The piece is whole, with so many tokens, a multiple of kBoxTokens: m and on of y.
  __device__ __forceinline__ void end(int m, int tokens) {
    const std::uint32_t piece = staging_ + turn_ * kPieceBytes;
    fence_for_copy_engine();
    meet(kOwnChannels + warpgroup(), 128);
    if (!a_.y_by_copy_engine) {
      store_elements(piece, m, tokens);
    } else if (thread_ == 0 && n_ < a_.N) {
      for (int token = max(first_ - m, 0); token < tokens && m + token < a_.M; token += kBoxTokens) {
        const std::uint32_t box = piece + token * (kFloat32 ? 256 : 128);
        write_box(y_, n_, m + token, box);
        if (kFloat32 && n_ + 32 < a_.N) write_box(y_, n_ + 32, m + token, box + kBoxBytes);
      }
    }
    if (thread_ == 0) copies_commit();
    turn_ = (turn_ + 1) % F::kPieces;
  }

  // Before the staging ends with the CTA.
  __device__ __forceinline__ void finish() {
    if (thread_ == 0) copies_read<0>();
  }

 private:
  __device__ __forceinline__ int warpgroup() const { return static_cast<int>(threadIdx.x) / 128; }

  __device__ __forceinline__ std::uint32_t rounded(float first, float second) const {
    std::uint32_t pair;
    if (a_.y_dtype == DType::kBFloat16) {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    } else {
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    }
    return pair;
  }

  __device__ __forceinline__ std::uint32_t float_at(std::uint32_t piece, int token, int channel) const {
    const int box = token / kBoxTokens * 2 + channel / 32, row = token % kBoxTokens;
    return piece + box * kBoxBytes + row * 128 + ((channel % 32 * 4) ^ (row << 4));
  }
  __device__ __forceinline__ void put_float(std::uint32_t piece, int token, int channel, float v) const {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(float_at(piece, token, channel)), "f"(v) : "memory");
  }

  // For rows that the copy engine cannot write.
  __device__ void store_elements(std::uint32_t piece, int m, int tokens) const {
    for (int i = thread_; i < tokens * 64; i += 128) {
      const int token = i / 64, channel = i % 64;
      if (m + token < first_ || m + token >= a_.M || n_ + channel >= a_.N) continue;
      char* row = static_cast<char*>(a_.y) + (m + token) * a_.y_stride;
      if constexpr (kFloat32) {
        float v;
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(float_at(piece, token, channel)) : "memory");
        reinterpret_cast<float*>(row)[n_ + channel] = v;
      } else {
        std::uint16_t v;
        const std::uint32_t from = piece + token * 128 + ((channel * 2) ^ ((token & 7) << 4));
        asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(from) : "memory");
        reinterpret_cast<std::uint16_t*>(row)[n_ + channel] = v;
      }
    }
  }

  const FloatWArguments& a_;
  const CUtensorMap& y_;
  std::uint32_t staging_;
  int thread_;
  int n_ = 0, first_ = 0, turn_ = 0;
};

}  // namespace octavo::sm90
