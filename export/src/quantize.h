// The integer fake quantizer of Brevitas (IntQuant) in one pass over the values, forward and backward.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "hwfault.h"

namespace hwfault {

// Values on a quantizer's grid. They lie in rows: of one scale each, or with a scale for each value of a row.
class Quantizer {
 public:
  // Throws Error for lengths that are impossible, and for numbers of zero points that fit no scale.
  explicit Quantizer(const hwfault_quantizer& given);

  int64_t count() const { return rows_ * length_; }

  // Forward and the gradient of the values alone: pieces of at most kPiece values of a row.
  int64_t pieces() const { return rows_ * per_row_; }
  int64_t pieces_per_thread() const;
  void quantize(const float* x, float* out, int64_t first, int64_t last) const;
  void pass(const float* x, const float* gradient, float* x_gradient, int64_t first, int64_t last) const;

  // The gradient of the scales as well. What is added up in a piece or a column does not depend on who does it.
  int64_t sums() const { return each_ ? outer_ * columns_ : pieces(); }
  int64_t sums_per_thread() const;
  std::vector<double> room_for_sums() const { return std::vector<double>(each_ ? 0 : pieces()); }
  void differentiate(const float* x, const float* gradient, float* x_gradient, double* scale_gradient, double* sums,
                     int64_t first, int64_t last) const;
  // Values [from, to) in C order, of which none has a scale of its own; the gradient may lie where that of x goes.
  bool in_rows() const { return !each_; }
  void quantize_range(const float* x, float* out, int64_t from, int64_t to) const;
  // Adds (number of the scale, what the values of a row in the range add to its gradient) to `sums`, in their order.
  using Sums = std::vector<std::pair<int64_t, double>>;
  void differentiate_range(const float* x, const float* gradient, float* x_gradient, int64_t from, int64_t to,
                           Sums& sums) const;

  int64_t scales() const { return outer_ * inner_; }
  // The pieces' sums in their order, where scales have several pieces.
  void add_up(const std::vector<double>& sums, double* scale_gradient) const;

 private:
  struct Piece {
    int64_t at, scale, length;  // where it begins, the number of its (first) scale, how many values it has
  };
  Piece piece(int64_t number) const;
  double differentiate_run(const float* x, const float* gradient, float* x_gradient, const Piece& run) const;
  void differentiate_piece(const float* x, const float* gradient, float* x_gradient, double* sums, int64_t number) const;
  void differentiate_column(const float* x, const float* gradient, float* x_gradient, double* scale_gradient,
                            int64_t number) const;

  const float* scale_;
  const float* zero_point_;
  std::vector<float> zero_points_;  // one for each scale, where one was given for all
  float least_, most_, pass_least_, pass_most_, floor_;
  bool each_;
  int64_t outer_, shared_, inner_, rows_, length_, per_row_, columns_;
};

// The largest magnitude of each row, NaN where a value is.
void largest_magnitudes(const float* x, int64_t rows, int64_t length, float* largest);

// Adds the gradient of each row's largest magnitude to that of the values that have it: the first alone, or equal shares.
// Nothing is added in rows without one, whose largest magnitude is NaN.
void add_to_largest(const float* x, int64_t rows, int64_t length, const float* largest, const float* gradient,
                    bool first_only, float* x_gradient);

}  // namespace hwfault
