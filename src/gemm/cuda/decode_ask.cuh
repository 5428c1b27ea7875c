// A warp's ring: asking for the weights, scales and zero points that it multiplies. See decode.cuh.
#pragma once

#include "core/ptx.cuh"
#include "gemm/cuda/copy_rows.cuh"
#include "gemm/cuda/decode_kind.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::decode {

// Asks for a warp's share of the blocks of a CTA's tiles, in their order.
template <class Kind>
class Asker {
 public:
  __device__ __forceinline__ Asker(const DecodeArguments& a, const CUtensorMap& w, const Shared<Kind>& shared,
                                   const std::uint8_t* memory, int warp, int lane, int first_tile, int step, int tiles)
      : a_(a),
        w_(w),
        ring_(ptx::shared_address(memory) + shared.ring_of(warp)),
        full_(ptx::shared_address(memory) + shared.barriers_of(warp)),
        parameters_(ptx::shared_address(memory) + shared.parameters_of(warp)),
        parameter_bytes_(shared.parameter_bytes),
        lane_(lane),
        channel_(first_tile * kChannels),
        channels_on_(step * kChannels),
        left_(tiles * a.blocks - warp) {
    const int tile = a.by_blocks.divide(warp);
    block_ = warp - tile * a.blocks;
    channel_ += tile * channels_on_;
    const int tiles_on = a.by_blocks.divide(Kind::kWarps);
    blocks_on_ = Kind::kWarps - tiles_on * a.blocks;
    skipped_ = tiles_on * channels_on_;
    if (sm90::elected()) {  // who initializes all, with one fence: lanes would take turns, with a fence each
#pragma unroll
      for (int i = 0; i < kMaxStages; ++i) {
        if (i < a.stages) sm90::barrier_init(full_ + i * 8, Kind::kFlush > 0 ? 1 + 32 : 1);
      }
    }
    sm90::barrier_init_fence();
    __syncwarp();
  }

  // Fills the ring from a place to another.
  __device__ __forceinline__ void fill(int from, int to) {
    for (int stage = from; stage < to; ++stage) ask(stage, 0);
  }

  // The next block into a place of the ring, if there is one more. `read` is made of words of all loads of what stood there:
  // the copy engine, which has a queue of its own, is asked when they have come.
  __device__ __forceinline__ void ask(int stage, std::uint32_t read) {
    if (left_ <= 0) return;
    if (Kind::kStartsNextLate && left_ <= a_.next_before) ptx::launch_dependents();
    const std::uint32_t full = full_ + stage * 8;
    if (sm90::elected() && (read & zero_) == 0) {
      sm90::barrier_expect(full, kBlockBytes);
      const std::uint32_t to = ring_ + stage * kBlockBytes;
      if (a_.whole_boxes) {
        sm90::copy_boxes(to, w_, block_ * kBoxes, channel_, full);
      } else {
#pragma unroll
        for (int i = 0; i < kBoxes; ++i) {
          sm90::copy_box(to + i * kBoxBytes, w_, (block_ * kBoxes + i) * kBoxRow, channel_, full);
        }
      }
    }
    __syncwarp();
    if constexpr (Kind::kFlush > 0) ask_parameters(full);
    left_ -= Kind::kWarps;
    block_ += blocks_on_;
    channel_ += skipped_;
    if (block_ >= a_.blocks) {
      block_ -= a_.blocks;
      channel_ += channels_on_;
    }
  }

 private:
  // Scales and zero points of a block's units, by all threads of the warp. Lane 16 u + c has channel c, and of its copies
  // every second.
  __device__ __forceinline__ void ask_parameters(std::uint32_t full) {
    const Groups& groups = a_.groups;
    const int row = lane_ % kChannels, first = lane_ / kChannels, n = min(channel_ + row, a_.N - 1);
    const std::uint32_t slot = parameters_ + slot_ * parameter_bytes_;
    const std::uint32_t scales = slot + row * Kind::kScalePitch;
    const std::uint32_t zero_points = slot + Kind::kZeroPoints + row * Kind::zero_point_pitch(groups);
    slot_ = slot_ == a_.stages ? 0 : slot_ + 1;
    const std::uint8_t* scale = groups.scale + n * groups.scale_stride;
    constexpr int kScaleBytes = Kind::kScaleBytes, kCopied = Kind::kCopied, kWord = 4 / kScaleBytes;
    if (Kind::kCopiesTogether && groups.together) {
#pragma unroll
      for (int i = 0; i < Kind::kUnits; i += 2 * kCopied) {
        const int unit = i + first * kCopied, group = min(block_ * Kind::kUnits + unit, groups.last + 1 - kCopied);
        if (unit >= Kind::kUnits) break;
        cuda::copy_cached_async<kCopied * kScaleBytes>(scales + unit * kScaleBytes, scale + group * kScaleBytes);
        if (groups.zero_point == nullptr) continue;
#pragma unroll
        for (int j = 0; j < kCopied; j += 4) {
          cuda::copy4_async(zero_points + unit + j, groups.zero_point_at(n, group + j), 4);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < Kind::kUnits; i += 2 * kWord) {
        const int unit = i + first * kWord, group = min(group_of<Kind>(groups, block_, unit), groups.last + 1 - kWord);
        if (unit >= Kind::kUnits) break;
        cuda::copy4_async(scales + unit * kScaleBytes, scale + group * kScaleBytes, 4);
        if (groups.zero_point == nullptr) continue;
#pragma unroll
        for (int j = 0; j < kWord; ++j) {
          cuda::copy_word_around_async(zero_points + (unit + j) * 4, groups.zero_point_at(n, group + j),
                                       groups.zero_point_at(a_.N - 1, groups.last));
        }
      }
    }
    sm90::barrier_arrive_when_copied(full);
  }

  const DecodeArguments& a_;
  const CUtensorMap& w_;
  std::uint32_t ring_, full_, parameters_;
  int parameter_bytes_, lane_;
  // The next block: its first channel, its number in the tile, and how many are left from it on. From one to the next
  // (several tiles on, where these are small), and to the next tile.
  int channel_, block_, left_, blocks_on_, skipped_, channels_on_;
  const std::uint32_t zero_ = ptx::in_register(0);
  // Parameters have one place more than the ring: they are read where they stand, after the next are asked for.
  int slot_ = 0;
};

}  // namespace octavo::decode
