// Reads the description of a network. Everything is checked before memory is taken for it.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "network.h"
#include "network_rows.h"

namespace hwfault {
namespace {

constexpr int64_t kVersion = 1;
constexpr int64_t kMostElements = int64_t{1} << 28;  // of a tensor, a layer's weights, the taps of all of its windows
constexpr int64_t kMostNodes = 1 << 16;
constexpr int64_t kMostRank = 8;
constexpr int64_t kLargestInput = 16383;  // changes of inputs and weights are numbers of 16 bits
constexpr int64_t kLargestSum = (int64_t{1} << 30) - 1;  // sums and their changes are numbers of 32 bits
constexpr size_t kMostLevels = 1 << 12;

int64_t product(std::initializer_list<int64_t> numbers, const char* what) {
  int64_t result = 1;
  for (const int64_t n : numbers) {
    if (n < 0 || (n && result > kMostElements / n))
      throw Error(std::string(what) + " are more than " + std::to_string(kMostElements));
    result *= n;
  }
  return result;
}

// Segments in which sums from `from` on give the same value, up to `to`, whose value is known.
void split(const Steps& steps, int64_t channel, int64_t from, float at_from, int64_t to, float at_to, Levels& levels) {
  if (at_from == at_to || levels.begin.size() > kMostLevels) return;
  if (to - from == 1) {
    levels.begin.push_back(static_cast<int32_t>(to));
    levels.value.push_back(at_to);
    return;
  }
  const int64_t middle = from + (to - from) / 2;
  const float at_middle = steps.apply(static_cast<double>(middle), channel);
  split(steps, channel, from, at_from, middle, at_middle, levels);
  split(steps, channel, middle, at_middle, to, at_to, levels);
}

Levels levels_of(const Steps& steps, int64_t channel, int64_t largest) {
  const int64_t from = -largest - 1, to = largest + 1;
  const float at_from = steps.apply(static_cast<double>(from), channel);
  Levels levels{{static_cast<int32_t>(from)}, {at_from}};
  split(steps, channel, from, at_from, to, steps.apply(static_cast<double>(to), channel), levels);
  return levels;
}

void build_levels(Node& node) {
  if (!node.steps.quantizes()) return;
  for (int64_t channel = 0; channel < (node.steps.each() ? node.channels : 1); ++channel) {
    node.levels.push_back(levels_of(node.steps, channel, node.largest_sum));
    if (node.levels.back().begin.size() <= kMostLevels) continue;
    node.levels.clear();  // too many to keep
    return;
  }
}

}  // namespace

// The plan's numbers one after the other.
class Network::Reader {
 public:
  Reader(const int64_t* plan, int64_t length) : plan_(plan), length_(length) {}

  int64_t left() const { return length_ - at_; }
  int64_t number(const char* what, int64_t least, int64_t most) {
    if (at_ >= length_) throw Error("the description of the network ends where " + std::string(what) + " should come");
    const int64_t n = plan_[at_++];
    if (n < least || n > most)
      throw Error(std::string(what) + " is " + std::to_string(n) + ", expected " + std::to_string(least) + " to " +
                  std::to_string(most));
    return n;
  }
  std::vector<Axis> axes() {
    std::vector<Axis> axes(number("the number of spatial axes", 0, kMostRank));
    for (Axis& axis : axes) {
      axis.input = number("a spatial length", 1, kMostElements);
      axis.output = number("a spatial length", 1, kMostElements);
      axis.kernel = number("the length of a kernel", 1, kMostElements);
      axis.stride = number("a stride", 1, kMostElements);
      axis.padding = number("a padding", 0, kMostElements);
      axis.dilation = number("a dilation", 1, kMostElements);
    }
    return axes;
  }

 private:
  const int64_t* plan_;
  int64_t length_, at_ = 0;
};

Network::Network(const int64_t* plan, int64_t length, const float* constants, int64_t n_constants,
                 const int16_t* weights, int64_t n_weights) {
  if (length < 0 || n_constants < 0 || n_weights < 0 || (length && !plan) || (n_constants && !constants) ||
      (n_weights && !weights))
    throw Error("the description of a network is missing, or of a negative length");
  constants_.assign(constants, constants + n_constants);
  for (const float constant : constants_)
    if (!std::isfinite(constant)) throw Error("a constant of the network is no finite number");
  given_weights_ = weights, n_weights_ = n_weights;

  Reader in(plan, length);
  in.number("the version of a network's description", kVersion, kVersion);
  constexpr double kAny = std::numeric_limits<float>::max();
  tensors_.push_back({in.number("the size of the input", 1, kMostElements), -kAny, kAny, false, -1});
  const int64_t nodes = in.number("the number of nodes", 1, kMostNodes);
  for (int64_t i = 0; i < nodes; ++i) {
    nodes_.push_back(read_node(in));
    for (const int64_t input : nodes_.back().inputs) tensors_[input].last_reader = i;
    tensors_.push_back(tensor_of(nodes_.back(), tensors_));
  }
  if (in.left()) throw Error(std::to_string(in.left()) + " numbers are left behind the network's last node");
  given_weights_ = nullptr;
}

Node Network::read_node(Reader& in) {
  Node node{};
  node.kind = static_cast<NodeKind>(in.number("the kind of a node", 0, 4));
  node.inputs.resize(in.number("the number of a node's inputs", 1, kMostNodes));
  for (int64_t& input : node.inputs)
    input = in.number("the input of a node", 0, static_cast<int64_t>(tensors_.size()) - 1);
  node.channels = in.number("the channels of a node", 1, kMostElements);
  node.positions = in.number("the positions of a node", 1, kMostElements);
  product({node.channels, node.positions}, "the values of a node");

  switch (node.kind) {
    case NodeKind::elementwise: check_inputs(node, 1); break;
    case NodeKind::add: check_inputs(node, 2); break;
    case NodeKind::layer: read_layer(in, node, given_weights_, n_weights_); break;
    case NodeKind::max_pool: read_pool(in, node); break;
    case NodeKind::move: read_move(in, node); break;
  }
  node.steps = read_steps(in, node);
  if (node.kind == NodeKind::layer) {
    if (node.steps.empty() || node.steps.steps().front().kind != StepKind::affine)
      throw Error("a layer does not begin with an affine step, which says what its sums are worth");
    build_levels(node);
  }
  return node;
}

Steps Network::read_steps(Reader& in, const Node& node) {
  std::vector<Step> steps(in.number("the number of steps", 0, kMostNodes));
  const auto all = static_cast<int64_t>(constants_.size());
  for (Step& step : steps) {
    step.kind = static_cast<StepKind>(in.number("the kind of a step", 0, 8));
    step.each = in.number("whether a step has numbers for each channel", 0, 1) != 0;
    step.at = in.number("where a step's constants begin", 0, all);
    step.least = static_cast<float>(in.number("the least integer of a step", -(1 << 24), 1 << 24));
    step.most = static_cast<float>(in.number("the largest integer of a step", -(1 << 24), 1 << 24));
    step.rounding = static_cast<StepRounding>(in.number("the rounding of a step", 0, 3));
    // how many constants it reads
    const bool two =
        step.kind == StepKind::affine || step.kind == StepKind::quantize || step.kind == StepKind::clip;
    const bool none = step.kind == StepKind::rectify || step.kind == StepKind::round;
    const int64_t count = none ? 0 : (two ? 2 : 1) * (step.each ? node.channels : 1);
    if (count > all - step.at) throw Error("a step's constants end behind the network's");
    // scales are positive, so that every step is monotone
    const bool scaled =
        step.kind == StepKind::quantize || step.kind == StepKind::divide || step.kind == StepKind::bipolar;
    for (int64_t i = 0; scaled && i < (step.each ? node.channels : 1); ++i)
      if (!(constants_[step.at + i] > 0)) throw Error("a scale of the network is not above 0");
  }
  return Steps(std::move(steps), node.channels, constants_.data());
}

void Network::check_inputs(const Node& node, int64_t expected) const {
  if (static_cast<int64_t>(node.inputs.size()) != expected)
    throw Error("a node has " + std::to_string(node.inputs.size()) + " inputs, expected " + std::to_string(expected));
  for (const int64_t input : node.inputs)
    if ((node.kind == NodeKind::elementwise || node.kind == NodeKind::add) && tensors_[input].size != node.size())
      throw Error("a node of " + std::to_string(node.size()) + " values reads " + std::to_string(tensors_[input].size));
}

void Network::read_layer(Reader& in, Node& node, const int16_t* weights, int64_t n_weights) {
  check_inputs(node, 1);
  node.groups = in.number("the groups of a layer", 1, node.channels);
  if (node.channels % node.groups) throw Error("the channels of a layer are no multiple of its groups");
  node.depth = in.number("the input channels of a group", 1, kMostElements);
  node.largest_weight = in.number("the largest weight of a layer", 1, kLargestInput);
  const int64_t at = in.number("where a layer's weights begin", 0, n_weights);
  read_pool(in, node);

  const Tensor& input = tensors_[node.inputs[0]];
  const int64_t taps = node.windows.taps;
  if (product({node.groups, node.depth, node.windows.inputs}, "the inputs of a layer") != input.size)
    throw Error("a layer reads " + std::to_string(input.size) + " values, expected those of its channels and lengths");
  if (!input.integers) throw Error("a layer reads values that are no integers");
  const double largest = std::max(-input.least, input.most);
  if (!(largest <= kLargestInput))
    throw Error("the integers that a layer reads may be larger than " + std::to_string(kLargestInput));
  const int64_t words = product({node.channels, node.depth, taps}, "the weights of a layer");
  if (words > n_weights - at) throw Error("a layer's weights end behind the network's");
  const double sum = static_cast<double>(node.depth * taps) * static_cast<double>(node.largest_weight) * largest;
  if (sum > kLargestSum)
    throw Error("the sums of a layer may be as large as " + std::to_string(sum) + ", expected less than 2^30");
  node.largest_sum = static_cast<int64_t>(sum);

  node.weights.assign(weights + at, weights + at + words);
  for (const int16_t weight : node.weights)
    if (std::abs(int64_t{weight}) > node.largest_weight)
      throw Error("a weight is " + std::to_string(weight) + ", beyond the largest of its layer");
  // channels of a group side by side, in whole blocks where there are many
  const int64_t in_group = node.in_group(), terms = node.depth * taps;
  node.stride = in_group < kRowBlock / 2 ? in_group : (in_group + kRowBlock - 1) / kRowBlock * kRowBlock;
  node.rows.resize(node.groups * terms * node.stride);
  for (int64_t channel = 0; channel < node.channels; ++channel)
    for (int64_t term = 0; term < terms; ++term) {
      const int64_t input = term / taps, tap = term % taps, group = channel / in_group;
      const int64_t row = (group * taps + tap) * node.depth + input;
      node.rows[row * node.stride + channel % in_group] = node.weights[channel * terms + term];
    }
}

void Network::read_pool(Reader& in, Node& node) {
  check_inputs(node, 1);
  const std::vector<Axis> axes = in.axes();
  int64_t inputs = 1, outputs = 1, taps = 1;
  for (const Axis& axis : axes) {
    inputs = product({inputs, axis.input}, "the positions of a node");
    outputs = product({outputs, axis.output}, "the positions of a node");
    taps = product({taps, axis.kernel}, "the taps of a window");
    if (axis.padding >= axis.kernel * axis.dilation && node.kind == NodeKind::max_pool)
      throw Error("a pool has windows that lie in the padding alone");
  }
  product({outputs, taps}, "the taps of all windows");
  if (outputs != node.positions) throw Error("a node's positions are not those of its spatial lengths");
  if (node.kind == NodeKind::max_pool && product({node.channels, inputs}, "the inputs of a pool") !=
                                             tensors_[node.inputs[0]].size)
    throw Error("a pool reads other values than those of its channels and lengths");
  node.windows.build(axes);
  if (node.kind != NodeKind::max_pool) return;
  for (int64_t output = 0; output < outputs; ++output) {
    const auto at = node.windows.input_of.begin() + output * taps;
    if (std::all_of(at, at + taps, [](int32_t input) { return input < 0; }))
      throw Error("a pool has windows that lie in the padding alone");
  }
}

void Network::read_move(Reader& in, Node& node) {
  int64_t all = 0;
  for (const int64_t input : node.inputs) all += tensors_[input].size;
  if (all > kMostElements) throw Error("the inputs of a node are more than " + std::to_string(kMostElements));
  if (node.size() > in.left()) throw Error("the description of the network ends within the table of a move");
  std::vector<int32_t> count(all + 1, 0);
  for (int64_t i = 0; i < node.size(); ++i) {
    node.table.push_back(static_cast<int32_t>(in.number("an entry of a move's table", -1, all - 1)));
    if (node.table.back() >= 0) ++count[node.table.back()];
  }
  node.moved_first.assign(all + 1, 0);
  for (int64_t i = 0; i < all; ++i) node.moved_first[i + 1] = node.moved_first[i] + count[i];
  node.moved_to.resize(node.moved_first[all]);
  std::vector<int32_t> next(node.moved_first.begin(), node.moved_first.end());
  for (int64_t i = 0; i < node.size(); ++i)
    if (node.table[i] >= 0) node.moved_to[next[node.table[i]]++] = static_cast<int32_t>(i);
}

Tensor Network::tensor_of(const Node& node, const std::vector<Tensor>& tensors) const {
  // before the steps
  Tensor out{node.size(), 0, 0, true, -1};
  if (node.kind == NodeKind::layer) {
    out.least = -static_cast<double>(node.largest_sum), out.most = -out.least;
  } else {
    const Tensor& first = tensors[node.inputs[0]];
    out.least = first.least, out.most = first.most;
    for (const int64_t input : node.inputs) {
      const Tensor& tensor = tensors[input];
      out.integers = out.integers && tensor.integers;
      out.least = std::min(out.least, tensor.least), out.most = std::max(out.most, tensor.most);
    }
    if (node.kind == NodeKind::add) {
      const Tensor& second = tensors[node.inputs[1]];
      out.least = first.least + second.least, out.most = first.most + second.most;
    } else if (node.kind == NodeKind::move) {
      out.least = std::min(out.least, 0.0), out.most = std::max(out.most, 0.0);
    }
  }
  if (node.steps.empty()) return out;
  // behind them: they are monotone
  const double ends[] = {out.least, out.most};
  out.least = std::numeric_limits<double>::infinity(), out.most = -out.least;
  for (int64_t channel = 0; channel < (node.steps.each() ? node.channels : 1); ++channel)
    for (const double end : ends) {
      const double value = node.steps.apply(end, channel);
      if (std::isnan(value)) throw Error("the values of a node may be no numbers");
      out.least = std::min(out.least, value), out.most = std::max(out.most, value);
    }
  out.integers = node.steps.steps().back().kind == StepKind::round;
  return out;
}

void Network::check_range(int64_t number, double least, double most) const {
  std::vector<Tensor> tensors = tensors_;
  tensors[number + 1].least = std::min(tensors[number + 1].least, least);
  tensors[number + 1].most = std::max(tensors[number + 1].most, most);
  for (size_t i = number + 1; i < nodes_.size(); ++i) {
    const int64_t input = nodes_[i].inputs[0];
    if (nodes_[i].kind == NodeKind::layer &&
        (tensors[input].least < tensors_[input].least || tensors[input].most > tensors_[input].most))
      throw Error("a layer would read larger integers than its sums have room for");
    tensors[i + 1] = tensor_of(nodes_[i], tensors);
  }
}

const Node& layer_of(const Network& network, int64_t number) {
  const auto count = static_cast<int64_t>(network.nodes().size());
  if (number < 0 || number >= count)
    throw Error("the node is " + std::to_string(number) + ", expected 0 to " + std::to_string(count - 1));
  const Node& node = network.nodes()[number];
  if (node.kind != NodeKind::layer) throw Error("the node " + std::to_string(number) + " has no weights");
  return node;
}

int64_t Network::bytes_per_image() const {
  int64_t bytes = 0;
  for (const Tensor& tensor : tensors_) bytes += 4 * tensor.size;
  for (const Node& node : nodes_)
    if (node.kind == NodeKind::layer) bytes += 12 * node.size();
  return bytes;
}

}  // namespace hwfault
