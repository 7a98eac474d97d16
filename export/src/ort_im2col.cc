#include "ort_im2col.h"

#include "windows.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kPart = 1 << 15;  // values a thread writes at a time, if a row of windows is no longer

}  // namespace

Im2Col::Im2Col(const NodeInfo& node)
    : strides_(node.integers("stride", 2, {}, 1, kLongest)),
      kernel_(node.integers("kernel_size", 2, {}, 1, kLongest)),
      pads_(node.integers("pad_amount", 4, {0, 0, 0, 0}, 0, kLongest)),
      dilations_(node.integers("dilations", 2, {1, 1}, 1, kLongest)),
      padding_(static_cast<float>(node.integer("pad_value", 0))) {
  node.integer("depthwise", 0, 0, 1);  // these two say nothing about values, but have to be what they should
  node.text("input_shape", "");
}

void Im2Col::compute(const Context& context) const {
  const auto x = context.input<float>(0);
  if (x.shape.size() != 4) throw Error("X has shape " + text_of(x.shape) + ", expected (N, H, W, C)");
  const int64_t height = x.shape[1], width = x.shape[2], channels = x.shape[3];
  Shape out{x.shape[0], 0, 0, element_count({kernel_[0], kernel_[1], channels})};
  for (size_t axis = 0; axis < 2; ++axis) {
    // qonnx cuts the quotient off: a window up to one stride too long has no position rather than being an error
    const int64_t room = x.shape[axis + 1] + pads_[axis] + pads_[axis + 2] - dilations_[axis] * (kernel_[axis] - 1) - 1;
    if (room <= -2 * strides_[axis])
      throw Error("X has shape " + text_of(x.shape) + ", whose axis " + std::to_string(axis + 1) + " with its padding is " +
                  "shorter than the window by " + std::to_string(-room));
    out[axis + 1] = room < 0 ? 0 : room / strides_[axis] + 1;
  }
  const bool empty = element_count(out) == 0;
  float* y = context.reshaped<float>(out);
  if (empty) return;
  const int64_t row = out[2] * out[3];
  context.share_out(out[0] * out[1], std::max<int64_t>(kPart / row, 1), [&](int64_t first, int64_t last) {
    for (int64_t line = first; line < last; ++line) {
      const float* image = x.data + line / out[1] * height * width * channels;
      const int64_t top = line % out[1] * strides_[0] - pads_[0];
      float* to = y + line * row;
      for (int64_t column = 0; column < out[2]; ++column)
        for (int64_t i = 0; i < kernel_[0]; ++i)
          for (int64_t j = 0; j < kernel_[1]; ++j, to += channels) {
            const int64_t h = top + i * dilations_[0], w = column * strides_[1] - pads_[1] + j * dilations_[1];
            if (h < 0 || h >= height || w < 0 || w >= width)
              std::fill(to, to + channels, padding_);
            else
              std::copy_n(image + (h * width + w) * channels, channels, to);
          }
    }
  });
}

}  // namespace hwfault::ort
