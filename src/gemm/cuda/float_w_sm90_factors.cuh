// Who makes the factors of groups, from scales and zero points in memory: kFactorWarps warps, of two channels a thread,
// period after period. Every row is a line of its own to the first-level cache, and takes a cycle from the products'
// reading; so those of some groups are loaded together, and the next ones while these are in use. See
// float_w_sm90_kernel.cuh.
#pragma once

#include "core/ptx.cuh"
#include "gemm/cuda/float_w_sm90_groups.cuh"

namespace octavo::sm90 {

inline constexpr int kFactorWarps = 2;

// A thread's channels of a tile are this one and the one 8 further, which one thread multiplies too: their factors stand
// side by side.
__device__ __forceinline__ int factor_channel(int warp, int lane) { return warp * 64 + lane / 8 * 16 + lane % 8; }
__device__ __forceinline__ std::uint32_t factor_place(int channel) {  // of factor_channel(); a channel's take 8 bytes
  return (channel / 8 * 8 + channel % 8 * 2) * 8;
}

__device__ __forceinline__ void store_factors(const GroupFactors (&f)[2], std::uint32_t to) {
  ptx::store_shared(to, f[0].offset, f[0].scale, f[1].offset, f[1].scale);
}
__device__ __forceinline__ void store_factors(const SumFactors (&f)[2], std::uint32_t to) {
  ptx::store_shared(to, f[0].offset, __float_as_uint(f[0].scale), f[1].offset, __float_as_uint(f[1].scale));
}

__device__ __forceinline__ bool is_aligned(const void* p, int bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

// Whether a matrix's rows begin at multiples of so many bytes.
template <class Rows>
__device__ __forceinline__ bool rows_aligned(const Rows& rows, int bytes) {
  return (reinterpret_cast<std::uintptr_t>(rows.data) | rows.stride) % bytes == 0;
}

// Between what has been loaded and is taken now, and loads into its place: the compiler would load into other registers
// first, and wait for them to move them there.
template <class T, int kCount>
__device__ __forceinline__ void taken(T (&words)[kCount]) {
#pragma unroll
  for (T& word : words) {
    if constexpr (std::is_same_v<T, float>) {
      asm volatile("" : "+f"(word));
    } else {
      asm volatile("" : "+r"(word));
    }
  }
}

// Of scales in float32, and groups of any size: those of four groups are loaded together.
template <class F>
class FactorMaker {
 public:
  __device__ __forceinline__ FactorMaker(const FloatWArguments& a, int warp, int lane)
      : a_(a), channel_(factor_channel(warp, lane)), periods_(a.group_size / (F::kPeriod * 16)) {
    last_ = (a.K - 1) / a.group_size;
    together_ = last_ % 4 == 3 && rows_aligned(a.scale, 16) && rows_aligned(a.zero_point, 4);
  }

  // The channels of a tile from n on, and a period along K where a stage begins.
  __device__ __forceinline__ void begin(int n, int period) {
    n_ = n + channel_;
    group_ = period / periods_;
    left_ = periods_ - period % periods_;
#pragma unroll 1
    for (int i = 0; i < 2; ++i) take_next(group_ / 4 + i);
  }

  // A stage's. It has one, two or four periods and begins at a multiple of that, so every fourth group begins with a stage.
  __device__ __forceinline__ void make(std::uint32_t to) {
    static_assert(4 % F::kChanges == 0);
    int group = group_ % 4;
#pragma unroll
    for (int change = 0; change < F::kChanges; ++change, to += F::kChangeBytes) {
      typename F::Factors factors[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float(&s)[4] = four_[i].scales;
        const float scale = (group & 2) != 0 ? (group & 1) != 0 ? s[3] : s[2] : (group & 1) != 0 ? s[1] : s[0];
        const int zero_point = static_cast<int>(four_[i].zero_points[0] >> group * 8 & 255);
        factors[i] = made(scale, zero_point);
      }
      store_factors(factors, to + factor_place(channel_));
      const bool over = --left_ == 0;
      left_ = over ? periods_ : left_;
      group += over ? 1 : 0;
    }
    group_ = group_ / 4 * 4 + group;
    if (group == 4) take_next(group_ / 4 + 1);
  }

 private:
  struct Four {
    float scales[4];
    std::uint32_t zero_points[1];
  };

  __device__ __forceinline__ static typename F::Factors made(float scale, int zero_point) {
    if constexpr (F::kRounded) {
      return F::Rounded::factors(scale, zero_point);
    } else {
      return {F::Convert::offset(zero_point), scale};
    }
  }

  // The next four groups' turn, and asks for the ones behind them. Groups past the last are used with no other x than 0.
  __device__ __forceinline__ void take_next(int four) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      four_[i] = next_[i];
      taken(four_[i].scales);
      taken(four_[i].zero_points);
    }
    const int first = min(four, last_ / 4) * 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = a_.channel_row(n_ + i * 8);
      const auto* scales = reinterpret_cast<const float*>(a_.scale.place(row, first));
      const std::uint8_t* zero_points = a_.zero_point(row) + first;
      std::uint32_t& four_zeros = next_[i].zero_points[0];
      four_zeros = a_.zero * 0x01010101u;
      if (together_) {
        const float4 v = __ldg(reinterpret_cast<const float4*>(scales));
        next_[i].scales[0] = v.x, next_[i].scales[1] = v.y, next_[i].scales[2] = v.z, next_[i].scales[3] = v.w;
        if (a_.zero_point.data != nullptr) four_zeros = __ldg(reinterpret_cast<const std::uint32_t*>(zero_points));
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int group = min(j, last_ - first);
          next_[i].scales[j] = __ldg(scales + group);
          if (a_.zero_point.data == nullptr) continue;
          four_zeros = __byte_perm(four_zeros, __ldg(zero_points + group), 0x3210 ^ (4 ^ j) << 4 * j);
        }
      }
    }
  }

  const FloatWArguments& a_;
  int channel_, periods_, last_;
  bool together_;
  int n_, group_, left_;  // left: periods of the group
  Four four_[2], next_[2];
};

// Whether scales and zero points can be loaded in aligned blocks of eight: rows stand one behind the other, all of them
// together fill blocks, and no stage has groups of the next row.
inline constexpr int kBlockGroups = 8;
template <class F>
__device__ __forceinline__ bool fill_blocks(const FloatWArguments& a) {
  const int groups = (a.K + a.group_size - 1) / a.group_size;
  return (groups % kBlockGroups == 0 || a.K % F::kBlockK == 0) &&
         a.N * static_cast<std::int64_t>(groups) % kBlockGroups == 0 && a.scale.stride == groups * 2 &&
         is_aligned(a.scale.data, 16) &&
         (a.zero_point.data == nullptr || (a.zero_point.stride == groups && is_aligned(a.zero_point.data, 8)));
}

// Of scales of 16 bits, of x's type; kZeros: with zero points. Their groups are of 32, 64 or 128, an even number: a group is
// a period, or two where a stage has one. Groups that are over are shifted out of the registers, so that the next stage's
// are always in the same ones: a stage's factors must take these two warps less time than its products the others, or those
// wait. They are loaded in blocks (kInBlocks), wherever rows begin: groups of the row in front are skipped. Where they do
// not fill blocks, two at a time.
template <class F, bool kZeros, bool kInBlocks>
class ShortFactorMaker {
 public:
  __device__ __forceinline__ ShortFactorMaker(const FloatWArguments& a, int warp, int lane)
      : a_(a), channel_(factor_channel(warp, lane)), periods_(a.group_size / (F::kPeriod * 16)) {
    groups_ = (a.K + a.group_size - 1) / a.group_size;
    last_block_ = static_cast<std::uint32_t>(a.N * static_cast<std::int64_t>(groups_) / kBlockGroups - 1);
    offset_ = F::Convert::offset(a.zero);
  }

  // The channels of a tile from n on, and a period along K where a stage begins.
  __device__ __forceinline__ void begin(int n, int period) {
    n_ = n + channel_;
    const int group = period / periods_;
    left_ = periods_ - period % periods_;
    group_ = group / kAtOnce * kAtOnce;
    const std::int64_t first = n_ * static_cast<std::int64_t>(groups_) + group_;
    block_ = static_cast<std::uint32_t>(first / kBlockGroups);
    skip_ = kInBlocks ? static_cast<int>(first % kBlockGroups) : 0;
#pragma unroll 1
    for (int i = 0; i < 2; ++i) take_next(group_ + i * kAtOnce);
#pragma unroll 1
    while (group_ < group) shift();
  }

  // A stage's.
  __device__ __forceinline__ void make(std::uint32_t to) {
    const std::uint32_t of_first = F::kChanges == 1 && group_ % 2 != 0 ? kUpper : kLower;
    to += factor_place(channel_);
#pragma unroll
    for (int change = 0; change < F::kChanges; ++change) {
      typename F::Factors factors[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t scale = __byte_perm(now_[i].scales[change / 2], 0, change % 2 == 0 ? of_first : kUpper);
        std::uint32_t offset = offset_;
        if (kZeros) offset = F::Convert::offset(static_cast<int>(now_[i].zero_points[0] >> change * 8 & 255));
        if constexpr (F::kRounded) {
          constexpr HowScaled kHow = kZeros ? HowScaled::kInOne : kSymmetricScaled<typename F::X>;
          factors[i] = F::Rounded::template factors<kHow>(scale, offset);
        } else {
          factors[i] = {offset, cuda::Element<typename F::X>::value(scale & 0xffff)};
        }
      }
      store_factors(factors, to + change * F::kChangeBytes);
    }
    if constexpr (F::kChanges == 1) {  // else a period is a group
      if (--left_ > 0) return;
      left_ = periods_;
    }
    shift();
    if (group_ % kAtOnce == 0) take_next(group_ + kAtOnce);
  }

 private:
  static constexpr int kAtOnce = F::kChanges == 4 ? 16 : 8;         // groups that are loaded together
  static constexpr std::uint32_t kLower = 0x1010, kUpper = 0x3232;  // of the two scales of a register, twice
  static constexpr int kBlocks = kAtOnce / kBlockGroups;
  struct Groups {
    std::uint32_t scales[kAtOnce / 2], zero_points[kAtOnce / 4];
  };
  struct Blocks {  // one more
    std::uint32_t scales[kAtOnce / 2 + 4], zero_points[kAtOnce / 4 + 2];
  };

  // A stage's groups are over.
  __device__ __forceinline__ void shift() {
    constexpr int kBits = F::kChanges * 8;  // of zero points
    constexpr int kWords = F::kChanges == 4 ? 2 : 1;
    group_ += F::kChanges;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      auto& [scales, zero_points] = now_[i];
#pragma unroll
      for (int word = 0; word < kAtOnce / 4; ++word) {
        const std::uint32_t above = word + 1 < kAtOnce / 4 ? zero_points[word + 1] : 0;
        zero_points[word] = kBits == 32 ? above : __funnelshift_r(zero_points[word], above, kBits);
      }
      if (F::kChanges == 1 && group_ % 2 != 0) continue;
#pragma unroll
      for (int word = 0; word + kWords < kAtOnce / 2; ++word) scales[word] = scales[word + kWords];
    }
  }

  // The next groups' turn, and asks for the ones behind them, from `first` on: of both channels, since a load that is
  // waited for is waited for with all others.
  __device__ __forceinline__ void take_next(int first) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      skip(now_[i], next_[i]);
      taken(now_[i].scales);
      if (kZeros) taken(now_[i].zero_points);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if constexpr (kInBlocks) {
        ask_blocks(next_[i], block_ + i * groups_);
      } else {
        ask(next_[i], a_.channel_row(n_ + i * 8), first);
      }
    }
    block_ += kBlocks;
  }

  // What is left of blocks without the groups of the row in front: 0, 2, 4 or 6.
  __device__ __forceinline__ void skip(Groups& to, const Blocks& from) const {
    const int skipped = kInBlocks ? skip_ : 0;
    std::uint32_t scales[kAtOnce / 2 + 1];
#pragma unroll
    for (int i = 0; i <= kAtOnce / 2; ++i) scales[i] = (skipped & 4) != 0 ? from.scales[i + 2] : from.scales[i];
#pragma unroll
    for (int i = 0; i < kAtOnce / 2; ++i) to.scales[i] = (skipped & 2) != 0 ? scales[i + 1] : scales[i];
    if constexpr (kZeros) {
      std::uint32_t zero_points[kAtOnce / 4 + 1];
#pragma unroll
      for (int i = 0; i <= kAtOnce / 4; ++i) {
        zero_points[i] = (skipped & 4) != 0 ? from.zero_points[i + 1] : from.zero_points[i];
      }
#pragma unroll
      for (int i = 0; i < kAtOnce / 4; ++i) {
        to.zero_points[i] = __funnelshift_r(zero_points[i], zero_points[i + 1], (skipped & 2) * 8);
      }
    }
  }

  // Loads a channel's from a block on. What is behind the last row's groups is not used.
  __device__ __forceinline__ void ask_blocks(Blocks& to, std::uint32_t first) const {
#pragma unroll
    for (int i = 0; i <= kBlocks; ++i) {
      if (i == kBlocks && skip_ == 0) break;
      const std::uint32_t block = min(first + i, last_block_);
      const uint4 s = __ldg(reinterpret_cast<const uint4*>(a_.scale.data) + block);
      to.scales[4 * i] = s.x, to.scales[4 * i + 1] = s.y, to.scales[4 * i + 2] = s.z, to.scales[4 * i + 3] = s.w;
      if (!kZeros) continue;
      const uint2 z = __ldg(reinterpret_cast<const uint2*>(a_.zero_point.data) + block);
      to.zero_points[2 * i] = z.x, to.zero_points[2 * i + 1] = z.y;
    }
  }

  // The same two groups at a time, from `first` on. Those past the last are used with no other x than 0.
  __device__ __forceinline__ void ask(Blocks& to, int row, int first) const {
#pragma unroll
    for (int pair = 0; pair < kAtOnce / 2; ++pair) {
      const int group = min(first + 2 * pair, groups_ - 2);
      to.scales[pair] = __ldg(reinterpret_cast<const std::uint32_t*>(a_.scale.place(row, group)));
      if (!kZeros) continue;
      const std::uint8_t* z = a_.zero_point(row) + group;
      const std::uint32_t two = __ldg(z) | static_cast<std::uint32_t>(__ldg(z + 1)) << 8;
      to.zero_points[pair / 2] = pair % 2 == 0 ? two : to.zero_points[pair / 2] | two << 16;
    }
  }

  const FloatWArguments& a_;
  int channel_, periods_, groups_;
  std::uint32_t offset_;              // without zero points
  std::uint32_t block_, last_block_;  // that is asked for next, of the first channel; the last one of all
  int n_, skip_;                      // the first channel; groups that stand before a row's own
  int group_, left_;                  // the stage's first group, and periods left of it
  Groups now_[2];
  Blocks next_[2];
};

}  // namespace octavo::sm90
