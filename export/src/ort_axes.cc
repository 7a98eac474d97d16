#include "ort_axes.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kMostRows = int64_t{1} << 31;

int64_t product(const Shape& shape, size_t first, size_t last) {
  return element_count(Shape(shape.begin() + first, shape.begin() + last));
}

}  // namespace

BatchAxis::BatchAxis(const NodeInfo& node)
    : axis(node.integer("axis", 0, 0, 63)),
      rows(node.integer("rows", 1, 1, kMostRows)),
      inner(node.integer("inner", 1, 1, kMostRows)) {
  if (rows % inner)
    throw Error("the attributes rows and inner are " + std::to_string(rows) + " and " + std::to_string(inner) +
                ", expected a multiple of the rows that lie together");
}

std::string BatchAxis::text() const {
  return std::to_string(rows) + (rows == 1 ? " row" : " rows") + " of each sample along axis " + std::to_string(axis);
}

int64_t BatchAxis::samples_in(const Shape& shape) const {
  const auto at = static_cast<size_t>(axis);
  if (at >= shape.size() || shape[at] % rows)
    throw Error("values of shape " + text_of(shape) + ", expected " + text());
  return shape[at] / rows;
}

Shape BatchAxis::sample_shape(const Shape& shape) const {
  samples_in(shape);  // refuses what has no such axis
  Shape sample = shape;
  sample[axis] = rows;
  return sample;
}

int64_t BatchAxis::run(const Shape& shape) const {
  Shape together(shape.begin() + axis, shape.end());
  together[0] = inner;
  return element_count(together);
}

Order::Order(const NodeInfo& node)
    : batched(node.integer("batched") != 0), layout(node.integers("layout", false)), batch(node) {
  Shape sorted = layout;
  std::sort(sorted.begin(), sorted.end());
  const bool in_front = layout.empty() || !batched || !batch.plain() || layout[0] == 0;
  for (size_t i = 0; i < sorted.size(); ++i)
    if (sorted[i] != static_cast<int64_t>(i) || !in_front)
      throw Error("the attribute layout is " + text_of(layout) + ", expected each axis once" +
                  (batched && batch.plain() ? ", the batch in front" : ""));
  if (!batched && !batch.plain())
    throw Error("the attributes axis, rows and inner say " + batch.text() + ", but the attribute batched is 0");
}

Shape Order::numbered(const Shape& x) const {
  if (layout.empty()) return x;
  if (layout.size() != x.size())
    throw Error("the attribute layout is " + text_of(layout) + " for values of shape " + text_of(x) +
                ", expected one integer for each axis");
  Shape result(x.size());
  for (size_t i = 0; i < x.size(); ++i) result[layout[i]] = x[i];
  return result;
}

Units Order::units(const Shape& x) const {
  if (!batched) return {1, element_count(x)};
  if (x.empty()) throw Error("the values have no batch axis, but the attribute batched is 1");
  const Shape shape = numbered(x);
  return {batch.samples_in(shape), element_count(batch.sample_shape(shape))};
}

int64_t Order::words_behind(const Shape& numbered, size_t axis) const {
  const Shape one = batched ? batch.sample_shape(numbered) : numbered;
  return std::max<int64_t>(product(one, axis + 1, one.size()), 1);
}

Permuted Order::permuted(const Shape& x) const {
  Shape lengths = numbered(x), strides(x.size());
  int64_t stride = 1;
  for (size_t i = x.size(); i-- > 0; stride *= x[i]) strides[layout[i]] = stride;
  if (!batched) return {std::move(lengths), std::move(strides), Units{1, element_count(x)}, 0};
  // the axis taken apart into groups of rows, samples and rows that lie together, of which the samples are left out
  const auto at = static_cast<size_t>(batch.axis);
  const Units all = units(x);
  const int64_t step = batch.inner * strides[at];
  lengths[at] = batch.inner;
  lengths.insert(lengths.begin() + at, batch.rows / batch.inner);
  strides.insert(strides.begin() + at, step * all.batch);
  return {std::move(lengths), std::move(strides), all, step};
}

}  // namespace hwfault::ort
