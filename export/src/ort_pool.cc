#include "ort_pool.h"

#include <cmath>

#include "clones.h"
#include "rounding.h"
#include "windows.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kPart = 1 << 14;  // values a thread handles at a time, if a row of windows has no more

// How many bits of a sum of kernel^2 unsigned integers of `bits` bits are more than `kept`.
int64_t surplus_bits(int64_t bits, int64_t kernel, int64_t kept) {
  int64_t length = 0;
  for (int64_t most = ((int64_t{1} << bits) - 1) * kernel * kernel; most > 0; most /= 2) ++length;
  return std::max<int64_t>(length - kept, 0);
}

HWFAULT_CLONES void add(const float* x, float* sums, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sums[i] += x[i];
}

// The first of start, start + step, ... that is not negative.
int64_t first_inside(int64_t start, int64_t step) { return start >= 0 ? start : (step - -start % step) % step; }

HWFAULT_CLONES void larger(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = y[i] < x[i] ? x[i] : y[i];
}

// a sum that went through an average and back, in float32, without its lowest `shift` bits
HWFAULT_INLINE float shifted(float sum, float count, int64_t shift) {
  const float back = std::rint(sum / count * count);
  constexpr float beyond = 9223372036854775808.0f;
  // what is no 64 bit integer becomes the lowest, as NumPy has it on x86
  const int64_t whole = std::fabs(back) < beyond ? static_cast<int64_t>(back) : INT64_MIN;
  return static_cast<float>(whole >> shift);
}

}  // namespace

QuantAvgPool2d::QuantAvgPool2d(const NodeInfo& node)
    : kernel_(node.integer("kernel", 1, 1, 1 << 14)),
      stride_(node.integer("stride", 1, 1, kLongest)),
      shift_(surplus_bits(node.integer("ibits", 1, 1, 32), kernel_, node.integer("obits", 1, 1, 32))) {
  node.integer("signed", 0, 0, 1);  // says nothing about values, but has to be what it should
  const std::string layout = node.text("data_layout", "NCHW");
  if (layout != "NCHW" && layout != "NHWC")
    throw Error("the attribute data_layout is '" + layout + "', expected NCHW or NHWC");
  channels_last_ = layout == "NHWC";
}

// Both layouts are images of lines: (N, H, W C) with steps of C values, or (N C, H, W) with steps of one.
void QuantAvgPool2d::compute(const Context& context) const {
  const auto x = context.input<float>(0);
  const size_t rows_axis = channels_last_ ? 1 : 2;
  if (x.shape.size() != 4 || x.shape[rows_axis] < kernel_ || x.shape[rows_axis + 1] < kernel_)
    throw Error("X has shape " + text_of(x.shape) + ", expected " + (channels_last_ ? "(N, H, W, C)" : "(N, C, H, W)") +
                " with H and W not below the kernel's " + std::to_string(kernel_));
  const int64_t height = x.shape[rows_axis], width = x.shape[rows_axis + 1];
  Shape out = x.shape;
  out[rows_axis] = (height - kernel_) / stride_ + 1;
  out[rows_axis + 1] = (width - kernel_) / stride_ + 1;
  float* y = context.reshaped<float>(out);
  if (element_count(out) == 0) return;
  const int64_t step = channels_last_ ? x.shape[3] : 1, line = width * step;
  const int64_t images = channels_last_ ? x.shape[0] : x.shape[0] * x.shape[1];
  const int64_t rows = out[rows_axis], columns = out[rows_axis + 1];
  const float count = static_cast<float>(kernel_ * kernel_);
  const int64_t part = std::max<int64_t>(kPart / std::max<int64_t>(line * kernel_, 1), 1);
  context.share_out(images * rows, part, [&](int64_t first, int64_t last) {
    std::vector<float> sums(static_cast<size_t>(line)), window(static_cast<size_t>(step));
    for (int64_t row = first; row < last; ++row) {
      const float* from = x.data + (row / rows * height + row % rows * stride_) * line;
      std::copy_n(from, line, sums.begin());
      for (int64_t i = 1; i < kernel_; ++i) add(from + i * line, sums.data(), line);
      for (int64_t column = 0; column < columns; ++column) {
        const float* under = sums.data() + column * stride_ * step;
        std::copy_n(under, step, window.begin());
        for (int64_t j = 1; j < kernel_; ++j) add(under + j * step, window.data(), step);
        float* to = y + (row * columns + column) * step;
        for (int64_t c = 0; c < step; ++c) to[c] = shifted(window[static_cast<size_t>(c)], count, shift_);
      }
    }
  });
}

MaxPoolNHWC::MaxPoolNHWC(const NodeInfo& node)
    : kernel_(node.integers("kernel_shape", 2, {}, 1, kLongest)),
      strides_(node.integers("strides", 2, {1, 1}, 1, kLongest)),
      pads_(node.integers("pads", 4, {0, 0, 0, 0}, 0, kLongest)),
      dilations_(node.integers("dilations", 2, {1, 1}, 1, kLongest)),
      ceil_(node.integer("ceil_mode", 0, 0, 1) != 0) {
  const std::string automatic = node.text("auto_pad", "NOTSET");
  if (automatic != "NOTSET" && automatic != "VALID")
    throw Error("the attribute auto_pad is '" + automatic + "', expected NOTSET (and the attribute pads) or VALID");
  if (automatic == "VALID") pads_.assign(4, 0);
  for (size_t i = 0; i < 4; ++i)
    if (pads_[i] >= kernel_[i % 2])
      throw Error("the attribute pads holds " + std::to_string(pads_[i]) + ", expected less than the kernel's " +
                  std::to_string(kernel_[i % 2]));
}

// A last window that ceil_mode adds starts within X or the padding in front of it, or there is none.
int64_t MaxPoolNHWC::positions(int64_t length, size_t axis) const {
  const int64_t room = length + pads_[axis] + pads_[axis + 2] - dilations_[axis] * (kernel_[axis] - 1) - 1;
  if (room < 0)
    throw Error("an axis of " + std::to_string(length) + " values with its padding is shorter than the window by " +
                std::to_string(-room));
  const int64_t stride = strides_[axis], whole = room / stride + 1;
  return ceil_ && room % stride != 0 && whole * stride < length + pads_[axis] ? whole + 1 : whole;
}

void MaxPoolNHWC::compute(const Context& context) const {
  const auto x = context.input<float>(0);
  if (x.shape.size() != 4) throw Error("X has shape " + text_of(x.shape) + ", expected (N, H, W, C)");
  const int64_t height = x.shape[1], width = x.shape[2], channels = x.shape[3];
  const Shape out{x.shape[0], positions(height, 0), positions(width, 1), channels};
  float* y = context.reshaped<float>(out);
  if (element_count(out) == 0) return;
  const int64_t row = out[2] * channels;
  const int64_t part = std::max<int64_t>(kPart / std::max<int64_t>(row, 1), 1);
  context.share_out(out[0] * out[1], part, [&](int64_t first, int64_t last) {
    for (int64_t line = first; line < last; ++line) {
      const float* image = x.data + line / out[1] * height * width * channels;
      const int64_t top = line % out[1] * strides_[0] - pads_[0];
      for (int64_t column = 0; column < out[2]; ++column) {
        float* to = y + line * row + column * channels;
        const int64_t left = column * strides_[1] - pads_[1];
        std::fill_n(to, channels, -INFINITY);
        const int64_t bottom = std::min(top + (kernel_[0] - 1) * dilations_[0] + 1, height);
        const int64_t right = std::min(left + (kernel_[1] - 1) * dilations_[1] + 1, width);
        for (int64_t h = first_inside(top, dilations_[0]); h < bottom; h += dilations_[0])
          for (int64_t w = first_inside(left, dilations_[1]); w < right; w += dilations_[1])
            larger(image + (h * width + w) * channels, to, channels);
      }
    }
  });
}

}  // namespace hwfault::ort
