// A quantized network as integer layers and what lies between them: parsed and checked once from flat numbers
// (export/include/hwfault.h, hwfault_network_new), never changed again.
#pragma once

#include <cstdint>
#include <vector>

#include "hwfault.h"
#include "program.h"

namespace hwfault {

// ---- what happens to each value alone, rounded as the reference rounds it

enum class StepKind : int64_t { affine, rectify, quantize, bipolar, multiply, add, divide, round, clip };
enum class StepRounding : int64_t { half_even, floor, ceil, down };

struct Step {
  StepKind kind;
  bool each;              // numbers of each channel, not one for all
  int64_t at;             // where they begin among the network's constants
  float least, most;      // of a quantizer's integers
  StepRounding rounding;  // of a quantizer
};

// Steps one after the other. Each of them, and so the whole, is monotone in the value.
class Steps {
 public:
  Steps() = default;
  Steps(std::vector<Step> steps, int64_t channels, const float* constants)
      : steps_(std::move(steps)), channels_(channels), constants_(constants) {}

  // The value behind all steps of one in this channel. An integer sum that begins with an affine step may be any.
  float apply(double value, int64_t channel) const;

  // The value behind steps [first, last) alone.
  float apply_part(double value, int64_t channel, size_t first, size_t last) const;

  // The value behind all steps with another addend of the first one, which is affine.
  float apply_with_addend(double value, int64_t channel, float addend) const;

  // The same as apply for n values, each in its channel.
  void apply_all(const double* values, const int32_t* channels, int64_t n, float* out) const;

  bool empty() const { return steps_.empty(); }
  bool each() const;
  bool quantizes() const;
  const std::vector<Step>& steps() const { return steps_; }

 private:
  const float* numbers(const Step& step, int64_t channel) const {
    return constants_ + step.at + (step.each ? channel : 0);
  }

  // `value` is x before it was rounded to float32
  float apply_step(const Step& step, double value, float x, int64_t channel) const;

  std::vector<Step> steps_;
  int64_t channels_ = 1;
  const float* constants_ = nullptr;
};

// ---- windows that slide over positions

struct Axis {
  int64_t input, output, kernel, stride, padding, dilation;
};

// Which positions of the input a window's taps lie at, and back.
struct Windows {
  struct Touch {
    int32_t output, tap;
  };

  int64_t inputs = 1, outputs = 1, taps = 1;
  std::vector<int32_t> input_of;   // [output * taps + tap], -1 in the padding
  std::vector<int32_t> first;      // of an input's touches; one more at the end
  std::vector<Touch> touches;

  void build(const std::vector<Axis>& axes);
};

// ---- nodes

enum class NodeKind : int64_t { elementwise, layer, add, max_pool, move };

// The values between which an integer sum in a channel gives the same value: segment i begins at begin[i].
struct Levels {
  std::vector<int32_t> begin;
  std::vector<float> value;
};

struct Node {
  NodeKind kind;
  std::vector<int64_t> inputs;  // numbers of tensors: 0 is the network's input, i + 1 what node i gives
  int64_t channels, positions;  // of the output, which lies in C order
  Steps steps;

  // layers: sums of groups, each of `depth` input channels
  int64_t groups = 1, depth = 1, largest_weight = 0, largest_sum = 0;
  std::vector<int16_t> weights;  // as they were given: (channels, depth, taps)
  std::vector<int16_t> rows;     // the same as (groups, taps, depth, channels of a group, 0 up to `stride`)
  int64_t stride = 1;            // from one row to the next
  std::vector<Levels> levels;    // of each channel, or one for all; empty: every sum has a value of its own
  Windows windows;               // layers and pools

  // moves: output i is element table[i] of the inputs, one behind the other (-1: 0), and back
  std::vector<int32_t> table, moved_first, moved_to;

  int64_t size() const { return channels * positions; }
  int64_t in_group() const { return channels / groups; }
  const int16_t* rows_at(int64_t group, int64_t tap) const {
    return rows.data() + (group * windows.taps + tap) * depth * stride;
  }
  int64_t words() const { return channels * depth * windows.taps; }
  const Levels* levels_of(int64_t channel) const {
    if (levels.empty()) return nullptr;
    return &levels[levels.size() == 1 ? 0 : channel];
  }
};

struct Tensor {
  int64_t size;
  double least, most;  // of its values, whatever the faults
  bool integers;
  int64_t last_reader;  // the number of the last node that reads it; -1: none
};

class Network {
 public:
  // Throws Error for what describes no network.
  Network(const int64_t* plan, int64_t length, const float* constants, int64_t n_constants, const int16_t* weights,
          int64_t n_weights);
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  int64_t input_size() const { return tensors_.front().size; }
  int64_t output_size() const { return tensors_.back().size; }
  int64_t bytes_per_image() const;
  // Throws Error where a layer would read larger integers than it was checked for, if node `number` gave values from
  // `least` to `most` as well.
  void check_range(int64_t number, double least, double most) const;

 private:
  class Reader;
  Node read_node(Reader& in);
  Steps read_steps(Reader& in, const Node& node);
  void read_layer(Reader& in, Node& node, const int16_t* weights, int64_t n_weights);
  void read_pool(Reader& in, Node& node);
  void read_move(Reader& in, Node& node);
  void check_inputs(const Node& node, int64_t expected) const;
  Tensor tensor_of(const Node& node, const std::vector<Tensor>& tensors) const;

  std::vector<float> constants_;
  const int16_t* given_weights_;
  int64_t n_weights_;
  std::vector<Node> nodes_;
  std::vector<Tensor> tensors_;
};

// The layer that a node is; throws Error for a number that is of no layer.
const Node& layer_of(const Network& network, int64_t number);

}  // namespace hwfault

struct hwfault_network : hwfault::Network {
  using Network::Network;
};
